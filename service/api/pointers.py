"""JSON pointers (RFC 6901) to what is wrong with a body, and how many of them an answer has."""

from __future__ import annotations

from collections.abc import Iterable

from service.errors import FieldError

Path = tuple["Path | None", str | int]
"""Where a value is: the path of what it is in (None: the whole), then its key or position there.
Unlike a text it costs the same however long the keys above are."""

_MOST_ERRORS = 20
_MOST_CHARACTERS = 16_384
"""Of the pointers of one event together, beyond the first: a key may have a million, and may be in
the pointer to everything."""


def pointer_to(path: Path | None) -> str:
    parts = []
    while path is not None:
        path, name = path
        parts.append(f"/{escaped(str(name))}")
    return "".join(reversed(parts))


def escaped(key: str) -> str:
    """A key as a part of a pointer, printable whatever it holds."""
    text = key.replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")


def cut(errors: Iterable[FieldError]) -> list[FieldError]:
    """As many of them as a client reads, at least one of several; no more than that are made."""
    kept: list[FieldError] = []
    characters = 0
    for error in errors:
        characters += len(error.pointer)
        if kept and characters > _MOST_CHARACTERS:
            break
        kept.append(error)
        if len(kept) == _MOST_ERRORS:
            break
    return kept
