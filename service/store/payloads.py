"""Large documents, in ways that never hold up other threads for more than one of them: the driver
turns all that it sends or receives at once into its bytes, or back, in a single call of C."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo.collection import Collection

from service import garbage
from service.mongo import Document
from service.store.guard import mongo_errors

_HEAD = 4 + 1 + 2
"""Bytes before the value of a document's only field, whose name is one letter."""


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
        """Each with its size in bytes as MongoDB has it. Raises `PyMongoError`."""
        with self._raw.find(query, **options) as found:
            for one in found:
                with garbage.paused():
                    document = bson.decode(one.raw, self._options)
                yield document, len(one.raw)
