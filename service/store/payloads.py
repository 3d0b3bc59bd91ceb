"""Large documents, in ways that never hold up other threads for more than one of them: the driver
turns all that it sends or receives at once into its bytes, or back, in a single call of C."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo.collection import Collection

from service.store.guard import mongo_errors
from service.store.mongo import Document

_HEAD = 4 + 1 + 2
"""Bytes before the value of a document's only field, whose name is one letter."""
_LARGE_BYTES = 32_768
_PIECE_BYTES = 65_536
_HEAD_BYTES = 4
"""A document's own length, before its members."""
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

    @property
    def is_list(self) -> bool:
        return self.kind == _LIST

    def pieces(self) -> Iterator[list[Any] | dict[str, Any] | tuple[str, Packed]]:
        """Its members, in order: small ones together, as a list or an object of them, so that no
        call of C takes long; a large one by itself, with its name."""
        first = end = _HEAD_BYTES
        for begin, value, end in _members(self.raw):
            is_large = end - value > _PIECE_BYTES and self.raw[begin] in (_OBJECT, _LIST)
            if begin > first and (is_large or end - first > _PIECE_BYTES):
                yield self._opened(first, begin)
                first = begin
            if is_large:
                name = self.raw[begin + 1 : value - 1].decode()
                yield name, Packed(self.raw[begin], self.raw[value:end], self.options)
                first = end
        if end > first:
            yield self._opened(first, end)

    def _opened(self, begin: int, end: int) -> list[Any] | dict[str, Any]:
        members: Document = bson.decode(_document(self.raw[begin:end]), self.options)
        return list(members.values()) if self.is_list else members


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

    def page(
        self, query: Document, *, sort: list[tuple[str, int]], limit: int, most_bytes: int
    ) -> tuple[list[Document], bool]:
        """The first ones, at most `limit`, and no more once they have `most_bytes`; and whether
        there is more. Raises `StoreUnavailable`."""
        documents, size = list[Document](), 0
        found = self.find(query, sort=sort, limit=limit + 1)
        with mongo_errors(), closing(found):
            for document, document_bytes in found:
                if len(documents) == limit or size >= most_bytes:
                    return documents, True
                documents.append(document)
                size += document_bytes
        return documents, False


def _opened(raw: bytes, options: CodecOptions[Any]) -> Document:
    if len(raw) < _LARGE_BYTES:
        return bson.decode(raw, options)
    large: Document = {}
    members = []
    for begin, value, end in _members(raw):
        if raw[begin] in (_OBJECT, _LIST) and end - value >= _LARGE_BYTES:
            name = raw[begin + 1 : value - 1].decode()
            large[name] = Packed(raw[begin], raw[value:end], options)
            members.append(_NULL + raw[begin + 1 : value])  # its place among the others
        else:
            members.append(raw[begin:end])
    small: Document = bson.decode(_document(b"".join(members)), options)
    return small | large


def _members(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a document of ours: where each begins, where its value does, and where it ends."""
    begin = _HEAD_BYTES
    while kind := raw[begin]:
        value = raw.index(0, begin + 1) + 1
        if kind in _COUNTED:
            end = value + _COUNTED[kind] + int.from_bytes(raw[value : value + 4], "little")
        else:
            end = value + _FIXED[kind]
        yield begin, value, end
        begin = end


def _document(members: bytes) -> bytes:
    return (len(members) + 5).to_bytes(4, "little") + members + b"\0"
