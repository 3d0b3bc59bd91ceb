"""Large documents, in ways that never hold up other threads for more than one of them: the driver
turns all that it sends or receives at once into its bytes, or back, in a single call of C."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo.collection import Collection

from service.mongo import Document
from service.store.guard import mongo_errors

_HEAD = 4 + 1 + 2
"""Bytes before the value of a document's only field, whose name is one letter."""
_LARGE_BYTES = 32_768
_OBJECT, _LIST, _NULL = 3, 4, b"\x0a"
_FIXED = {1: 8, 7: 12, 8: 1, 9: 8, 10: 0, 16: 4, 17: 8, 18: 8, 19: 16}
"""Bytes of a value by its kind (https://bsonspec.org)."""
_COUNTED = {2: 4, 3: 0, 4: 0, 5: 5}
"""Kinds whose values begin with their length, and how many bytes it doesn't count."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A large value as MongoDB's bytes: as objects it would take ten times as much, and all who
    hold it would have to wait while it is made and taken apart."""

    kind: int
    raw: bytes
    options: CodecOptions[Any]

    def opened(self) -> Any:
        return bson.decode(_document(bytes((self.kind,)) + b"p\0" + self.raw), self.options)["p"]


def packed(payload: dict[str, Any]) -> Any:
    """A payload as MongoDB's bytes: the same for whoever stores it, a fraction of what it takes as
    objects, and a batch of them is put together by copying. Raises `InvalidEvent` for what BSON
    can't hold."""
    with mongo_errors():
        # Not by itself: a document's own `_id` would be moved to its front.
        return RawBSONDocument(bson.encode({"p": payload})[_HEAD:-1])


def packed_bytes(document: Document) -> int:
    """How many bytes its payload has; 0: it isn't packed."""
    payload = document["payload"]
    return len(payload.raw) if isinstance(payload, RawBSONDocument) else 0


class OneByOne:
    """Finds what `collection` finds, each document made when it is asked for."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._options = collection.codec_options
        self._raw: Collection[Any] = collection.with_options(codec_options=DEFAULT_RAW_BSON_OPTIONS)

    def find(self, query: Document, **options: Any) -> Generator[tuple[Document, int], None, None]:
        """Each with its size in bytes as MongoDB has it; objects and lists that are large stay
        `Packed`. Raises `PyMongoError`."""
        with self._raw.find(query, **options) as found:
            for one in found:
                raw = bytes(one.raw)  # the driver may have a view only, of all that it was sent
                yield _opened(raw, self._options), len(raw)


def _opened(raw: bytes, options: CodecOptions[Any]) -> Document:
    if len(raw) < _LARGE_BYTES:
        return bson.decode(raw, options)
    large: Document = {}
    members = []
    for name, begin, value, end in _members(raw):
        if raw[begin] in (_OBJECT, _LIST) and end - value >= _LARGE_BYTES:
            large[name] = Packed(raw[begin], raw[value:end], options)
            members.append(_NULL + raw[begin + 1 : value])  # its place among the others
        else:
            members.append(raw[begin:end])
    small: Document = bson.decode(_document(b"".join(members)), options)
    return small | large


def _members(raw: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Of a document of ours: name, where the member begins, where its value does, and where it
    ends."""
    begin = 4
    while kind := raw[begin]:
        value = raw.index(0, begin + 1) + 1
        if kind in _COUNTED:
            end = value + _COUNTED[kind] + int.from_bytes(raw[value : value + 4], "little")
        else:
            end = value + _FIXED[kind]
        yield raw[begin + 1 : value - 1].decode(), begin, value, end
        begin = end


def _document(members: bytes) -> bytes:
    return (len(members) + 5).to_bytes(4, "little") + members + b"\0"
