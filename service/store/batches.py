"""Documents as the server sends them, decoded only as far as memory allows.

What a document has as Python objects is two to five times its BSON, and a claim may bring hundreds:
how large they are must be known before they are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import bson
from bson.codec_options import CodecOptions

from service.mongo import Document

_LENGTH = struct.Struct("<i")


def fitting(
    batches: Iterable[bytes], most_bytes: float, options: CodecOptions[Document]
) -> Iterator[tuple[Document, int]]:
    """The first documents of the batches, each with its size in bytes: all that have `most_bytes`
    together, and one at least."""
    left = most_bytes
    for batch in batches:
        sizes = _sizes(batch)
        if (whole := len(batch)) > left:
            end = _end(sizes, left, needed=left == most_bytes)
            if end < whole:
                yield from zip(bson.decode_all(batch[:end], options), sizes, strict=False)
                return
        yield from zip(bson.decode_all(batch, options), sizes, strict=True)
        left -= whole


def _sizes(batch: bytes) -> list[int]:
    """Each document begins with its length."""
    sizes, at, end = [], 0, len(batch)
    while at < end:
        (size,) = _LENGTH.unpack_from(batch, at)
        sizes.append(size)
        at += size
    return sizes


def _end(sizes: list[int], most_bytes: float, *, needed: bool) -> int:
    """Where the last document ends that still fits; `needed`: the first one in any case."""
    end = sizes[0] if needed else 0
    for size in sizes[needed:]:
        if end + size > most_bytes:
            break
        end += size
    return end
