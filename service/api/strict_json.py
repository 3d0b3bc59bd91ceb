"""Strict JSON (RFC 8259, I-JSON): what two parsers could read differently is refused.

The standard library's parser is told to refuse duplicate keys and what is no JSON number. Faster
ones take duplicate keys, or turn large integers into floats.

Two steps, for two kinds of errors: `parse` raises `MalformedBody` for what isn't JSON as we read
it, `check_storable` raises `InvalidEvent` for JSON that can't be stored and returned exactly
(integers beyond 64 bit, NUL, lone surrogates).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

from service.api.pointers import Path, cut, pointer_to
from service.errors import FieldError, InvalidEvent, MalformedBody

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
_LONG_BYTES = 32_768
_DIGITS_AS_ZEROS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19


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


class Part(NamedTuple):
    """A value within a body: where it begins and ends, and how many containers it is in."""

    begin: int
    end: int
    level: int = 0


def parse(body: bytes, max_nesting: int, part: Part | None = None) -> Parsed:
    """The value that `body` holds, or a part of it. Raises `MalformedBody`.

    A long one is decoded with a hook for integers, too: while there are hooks to call, other
    threads may go first.
    """
    data, level = (body, 0) if part is None else (body[part.begin : part.end], part.level)
    long_number = _LONG_NUMBER in data.translate(_DIGITS_AS_ZEROS)
    hooked = long_number or len(data) >= _LONG_BYTES
    value = _decoded(data, _strict_and_long if hooked else _strict, body, part)
    if data.count(b"{") + data.count(b"[") > max_nesting - level:
        _check_nesting(value, max_nesting, level)
    return Parsed(value, long_number or b"\\u" in data)


def _decoded(data: bytes, decoder: json.JSONDecoder, body: bytes, part: Part | None) -> Any:
    try:
        return _scanned(data.decode(), decoder)
    except UnicodeDecodeError as error:
        at = error.start + (part.begin if part else 0)
        raise MalformedBody(f"the body is not UTF-8: byte {at} can't be read") from None
    except json.JSONDecodeError as error:
        if not body.strip():
            raise MalformedBody("the body is empty") from None
        begin = part.begin if part else 0
        where = place(body, begin + len(error.doc[: error.pos].encode()))
        raise MalformedBody(f"the body is not JSON: {error.msg} at {where}") from None
    except _Refused as error:
        raise MalformedBody(f"the body is not strict JSON: {error}") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None


def place(body: bytes, at: int) -> str:
    """A position in words, counted as people do."""
    begin = body.rfind(b"\n", 0, at) + 1
    column = len(body[begin:at].decode(errors="replace")) + 1
    line = body.count(b"\n", 0, at) + 1
    return f"line {line}, column {column}"


def _scanned(text: str, decoder: json.JSONDecoder) -> Any:
    """The scanner alone is enough for a text without blanks around; all others, and what is wrong
    with a text, are the decoder's."""
    try:
        value, end = decoder.scan_once(text, 0)  # type: ignore[attr-defined]  # since 2.7
    except StopIteration:
        return decoder.decode(text)
    return value if end == len(text) else decoder.decode(text)


def _check_nesting(value: Any, max_nesting: int, level: int) -> None:
    inside = [value]
    for _ in range(max_nesting - level):
        inside = [
            member
            for outer in inside
            for member in (outer.values() if type(outer) is dict else outer)
            if type(member) is dict or type(member) is list
        ]
        if not inside:
            return
    raise MalformedBody(f"the body is nested deeper than {max_nesting} levels")


def check_storable(value: Any) -> None:
    """Raises `InvalidEvent` for what can't be stored and returned exactly, wherever it is."""
    if errors := cut(_unstorable(value)):
        raise InvalidEvent("the body holds values that can't be stored", errors)


def _unstorable(value: Any) -> Iterator[FieldError]:
    if type(value) is dict or type(value) is list:
        yield from _unstorable_in(value, None)
    elif detail := _scalar_error(value):
        yield FieldError("", detail)


def _unstorable_in(outer: Any, path: Path | None) -> Iterator[FieldError]:
    """Everything in it is looked at; a pointer, which takes as long as its keys are, is only made
    for what is wrong."""
    is_object = type(outer) is dict
    members: Iterable[tuple[Any, Any]] = outer.items() if is_object else enumerate(outer)
    for name, member in members:
        if is_object and (detail := text_error(name)):
            yield FieldError(pointer_to((path, name)), f"a key with {detail}")
        if type(member) is dict or type(member) is list:
            yield from _unstorable_in(member, (path, name))
        elif detail := _scalar_error(member):
            yield FieldError(pointer_to((path, name)), detail)


def _scalar_error(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        detail = text_error(value)
        return f"a string with {detail}" if detail else None
    if kind is int and not MIN_INTEGER <= value <= MAX_INTEGER:
        return "an integer beyond 64 bits"
    return None


def text_error(text: str) -> str | None:
    """What keeps a text from being stored, if anything."""
    if "\0" in text:
        return "a NUL character (U+0000)"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate"
    return None
