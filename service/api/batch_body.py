"""Where the events of a large batch begin and end, without parsing it.

Parsed as a whole, 16 MiB would hold up all other requests for as long as that takes, and be several
hundred MB of objects. So a large batch is cut into its events first, by brackets and strings alone;
whether they are JSON is found out as each one is parsed. Of what is refused for its size, and of
what is no batch, only as much is checked.
"""

from __future__ import annotations

import re
from typing import NoReturn

from service.api.strict_json import Part, place
from service.concurrency.cpu_lane import Steps
from service.errors import MalformedBody

EVENTS_LEVEL = 2
"""An event is inside of an object and of a list."""
_SLICE_BYTES = 262_144
"""How far one call of C may go: others wait for its end."""
_STEP_MATCHES = 512

_BLANKS = rb"[ \t\n\r]*+"
_begins = re.compile(
    _BLANKS + rb"\{" + _BLANKS + rb'"events"' + _BLANKS + rb":" + _BLANKS + rb"\["
).match
_ends = re.compile(_BLANKS + rb"\}" + _BLANKS + rb"\Z").match
_blanks = re.compile(_BLANKS).match
_in_string = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL).match
_PLAIN = rb'[^"\[\]{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_to_brackets = re.compile(
    rb"(?:%b|[\[{](?:%b)*+[\]}])*+([\[{]++|[\]}]++)?" % (_PLAIN, _PLAIN), re.DOTALL
).match
"""Passes strings, numbers and words, and containers of nothing else, up to a run of brackets."""
_word = re.compile(rb'[^ \t\n\r,\[\]{}":]*+').match
_QUOTE, _COMMA, _LIST_ENDS, _OPENING, _CLOSING = ord('"'), ord(","), ord("]"), b"[{", b"]}"


def parts(body: bytes, most: int) -> Steps[list[Part] | None]:
    """The events; one more than `most` where there are more. None: it is no object with a list
    `events` and nothing else. Raises `MalformedBody`."""
    begun = _begins(body)
    if begun is not None:
        reader = _Reader(body, begun.end())
        found = yield from _members(reader, most)
        if len(found) > most or _ends(body, reader.at):
            return found
    whole = _Reader(body, 0)
    yield from whole.skip_value()
    whole.skip_blanks()
    if whole.at < len(body):
        whole.refuse("Extra data")
    return None


def _members(reader: _Reader, most: int) -> Steps[list[Part]]:
    """Of a list, from behind its bracket to behind its other one."""
    found: list[Part] = []
    if reader.next_byte() == _LIST_ENDS:
        reader.at += 1
        return found
    while len(found) <= most:
        reader.skip_blanks()
        begin = reader.at
        yield from reader.skip_value()
        found.append(Part(begin, reader.at, EVENTS_LEVEL))
        byte = reader.next_byte()
        if byte not in (_COMMA, _LIST_ENDS):
            reader.refuse("Expecting ',' delimiter")
        reader.at += 1
        if byte == _LIST_ENDS:
            break
        yield
    return found


class _Reader:
    """A position in a body, and how to go on from it. What isn't JSON raises `MalformedBody`."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body, self.at = body, at

    def skip_blanks(self) -> None:
        self.at = _blanks(self._body, self.at).end()  # type: ignore[union-attr]  # it may be empty

    def next_byte(self) -> int:
        """The next one that isn't blank, which is not passed."""
        self.skip_blanks()
        if self.at == len(self._body):
            self.refuse("Unexpected end")
        return self._body[self.at]

    def refuse(self, why: str) -> NoReturn:
        raise MalformedBody(f"the body is not JSON: {why} at {place(self._body, self.at)}")

    def skip_value(self) -> Steps[None]:
        """Passes a text, a number, a word, or a container with all that is in it."""
        byte = self.next_byte()
        if byte in _OPENING:
            yield from self._skip_container()
        elif byte == _QUOTE:
            self._skip_string()
        else:
            begin, self.at = self.at, _word(self._body, self.at).end()  # type: ignore[union-attr]
            if self.at == begin:
                self.refuse("Expecting value")

    def _skip_container(self) -> Steps[None]:
        at, level, matches = self.at + 1, 1, 0
        while True:
            found = _to_brackets(self._body, at, at + _SLICE_BYTES)
            at = found.end()  # type: ignore[union-attr]
            brackets: bytes | None = found[1]  # type: ignore[index]
            if brackets is None:
                at = self._after_other(at)
            elif brackets[0] in _OPENING:
                level += len(brackets)
            else:
                level -= len(brackets)
                if level <= 0:
                    self.at = at + level
                    return
            matches += 1
            if brackets is None or matches % _STEP_MATCHES == 0:
                yield

    def _after_other(self, at: int) -> int:
        """Where to go on if there was no bracket: a slice ended there, maybe within a string."""
        self.at = at
        if self.next_byte() == _QUOTE:
            self._skip_string()
        return self.at

    def _skip_string(self) -> None:
        self.at += 1
        while True:
            begin, self.at = self.at, _in_string(self._body, self.at, self.at + _SLICE_BYTES).end()  # type: ignore[union-attr]
            if self._body[self.at : self.at + 1] == b'"':
                self.at += 1
                return
            if self.at == begin:
                self.refuse("Unterminated string")
