"""Strict JSON (RFC 8259, I-JSON): what two parsers could read differently is refused.

The standard library's parser is told to refuse duplicate keys and what is no JSON number. Faster
ones take duplicate keys, or turn large integers into floats.

Two steps, for two kinds of errors: `parse` raises `MalformedBody` for what isn't JSON as we read
it, `check_storable` raises `InvalidEvent` for JSON that can't be stored and returned exactly
(integers beyond 64 bit, NUL, lone surrogates).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from service.errors import FieldError, InvalidEvent, MalformedBody

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
_MOST_ERRORS = 20
_find_long_number = re.compile(rb"[0-9]{19}").search


class Parsed(NamedTuple):
    """A value, and whether it may hold what can't be stored: see `check_storable`."""

    value: Any
    is_suspicious: bool


class _Refused(ValueError):
    """Raised by the parser's hooks; the message is a sentence for the client."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {twice[:100]!a} occurs twice in one object")
    return made


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Refused("a number is too large for a double")
    return value


def _integer(text: str) -> int:
    # More digits than that are beyond any bound, and converting them takes time squared.
    return int(text) if len(text) <= 40 else MAX_INTEGER + 1


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON number")


_strict = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
_strict_and_long = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_constant=_constant, parse_int=_integer
)


def parse(body: bytes, max_nesting: int) -> Parsed:
    """The value that `body` holds. Raises `MalformedBody`."""
    long_number = _find_long_number(body) is not None
    value = _decoded(body, _strict_and_long if long_number else _strict)
    if body.count(b"{") + body.count(b"[") > max_nesting:
        _check_nesting(value, max_nesting)
    return Parsed(value, long_number or b"\\u" in body)


def _decoded(body: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return _scanned(body.decode(), decoder)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} can't be read") from None
    except json.JSONDecodeError as error:
        if not body.strip():
            raise MalformedBody("the body is empty") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedBody(f"the body is not JSON: {error.msg} at {where}") from None
    except _Refused as error:
        raise MalformedBody(f"the body is not strict JSON: {error}") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None


def _scanned(text: str, decoder: json.JSONDecoder) -> Any:
    """The scanner alone is enough for a text without blanks around; all others, and what is wrong
    with a text, are the decoder's."""
    try:
        value, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]  # since 2.7
    except StopIteration:
        return decoder.decode(text)
    return value if end == len(text) else decoder.decode(text)


def _check_nesting(value: Any, max_nesting: int) -> None:
    level = [value]
    for _ in range(max_nesting):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return
    raise MalformedBody(f"the body is nested deeper than {max_nesting} levels")


def _containers(outer: Any) -> Iterator[Any]:
    kind = type(outer)
    members = outer.values() if kind is dict else outer if kind is list else ()
    return (member for member in members if type(member) is dict or type(member) is list)


def check_storable(value: Any) -> None:
    """Raises `InvalidEvent` for what can't be stored and returned exactly, wherever it is."""
    errors: list[FieldError] = []
    level: list[tuple[str, Any]] = [("", value)]
    while level and len(errors) < _MOST_ERRORS:
        level = [found for pointer, inner in level for found in _inside(pointer, inner, errors)]
    if errors:
        raise InvalidEvent("the body holds values that can't be stored", errors[:_MOST_ERRORS])


def _inside(pointer: str, value: Any, errors: list[FieldError]) -> Iterator[tuple[str, Any]]:
    """The containers' members, one level down; notes what is wrong with a scalar or a key."""
    kind = type(value)
    if kind is dict:
        for key, member in value.items():
            inner = f"{pointer}/{escaped(key)}"
            if detail := text_error(key):
                errors.append(FieldError(inner, f"a key with {detail}"))
            yield from _held(inner, member, errors)
    elif kind is list:
        for position, member in enumerate(value):
            yield from _held(f"{pointer}/{position}", member, errors)
    else:
        yield from _held(pointer, value, errors)


def _held(pointer: str, member: Any, errors: list[FieldError]) -> Iterator[tuple[str, Any]]:
    kind = type(member)
    if kind is dict or kind is list:
        yield pointer, member
    elif kind is str:
        if detail := text_error(member):
            errors.append(FieldError(pointer, f"a string with {detail}"))
    elif kind is int and not MIN_INTEGER <= member <= MAX_INTEGER:
        errors.append(FieldError(pointer, "an integer beyond 64 bits"))


def text_error(text: str) -> str | None:
    """What keeps a text from being stored, if anything."""
    if "\0" in text:
        return "a NUL character (U+0000)"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    return None


def escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901), printable whatever it holds."""
    text = key.replace("~", "~0").replace("/", "~1")
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\u0000")
