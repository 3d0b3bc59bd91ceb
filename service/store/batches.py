"""Documents as the server sends them, decoded only as far as memory allows.

A text takes as much memory as its BSON, an array of small objects fifteen times as much, and a
claim may bring hundreds of documents: what they will take must be known before they are decoded.
Every key, string and small number in BSON has bytes that are zero, about three for each Python
object to come: counting them costs next to nothing and says well enough how many objects there are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import bson
from bson.codec_options import CodecOptions

from service.store.mongo import Document

_LENGTH = struct.Struct("<i")
_ZERO_BYTES = 24
"""Of memory for each zero: between half and one and a half times what real payloads take."""


def fitting(
    batches: Iterable[bytes], most_bytes: float, options: CodecOptions[Document]
) -> Iterator[tuple[Document, int]]:
    """The first documents of the batches, each with the bytes of memory that it takes, about: as
    many as have `most_bytes` together, and one at least."""
    left, is_first = most_bytes, True
    for batch in batches:
        at, whole, sizes = 0, len(batch), []
        while at < whole:
            (length,) = _LENGTH.unpack_from(batch, at)  # every document begins with it
            size = length + _ZERO_BYTES * batch.count(b"\0", at, at + length)
            if size > left and not is_first:
                break
            at, left, is_first = at + length, left - size, False
            sizes.append(size)
        part = batch if at == whole else memoryview(batch)[:at]
        yield from zip(bson.decode_all(part, options), sizes, strict=True)
        if at < whole:
            return
