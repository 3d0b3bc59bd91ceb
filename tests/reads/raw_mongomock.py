"""mongomock hands out no documents as bytes: this does, from the same collection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import bson
import mongomock
from bson.codec_options import CodecOptions
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument

OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True, tzinfo=UTC)
_with_options = mongomock.collection.Collection.with_options


class RawCollection:
    """What `with_options` returns for the options of raw documents; only `find`."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    @contextmanager
    def find(self, *args: Any, **options: Any) -> Iterator[Iterator[RawBSONDocument]]:
        yield (RawBSONDocument(bson.encode(d)) for d in self._collection.find(*args, **options))


def with_options(collection: Any, *args: Any, codec_options: Any = None, **more: Any) -> Any:
    if codec_options is DEFAULT_RAW_BSON_OPTIONS:
        return RawCollection(collection)
    return _with_options(collection, *args, codec_options=codec_options, **more)
