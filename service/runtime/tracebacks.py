"""An exception with its traceback as text: as Python prints it, but quickly where the same place
raises again and again.

Of the 150 us that Python takes for a short traceback, nearly all go into its frames: their lines
are looked up, parsed and underlined each time. That text depends on nothing but where in the code
each frame stands, so it is kept.
"""

from __future__ import annotations

import traceback
from types import CodeType, TracebackType

_MOST_FRAMES = 50
_MOST_KEPT = 200
_OTHERWISE = (NameError, ImportError, SyntaxError, BaseExceptionGroup)
"""Their last lines need the traceback too, or they are printed in a form of their own."""

_Place = tuple[tuple[int, int], ...]
"""Of each frame: the `id` of its code, and how far it had come."""

_kept: dict[_Place, tuple[list[CodeType], str]] = {}
"""With the code objects themselves, as an `id` is only theirs while they live."""


def text_of(error: BaseException) -> str:
    """Without a line break at its end."""
    if _is_chained(error) or isinstance(error, _OTHERWISE):
        return "".join(traceback.format_exception(error)).removesuffix("\n")
    frames = "" if error.__traceback__ is None else _frames(error.__traceback__)
    return (frames + "".join(traceback.format_exception_only(error))).removesuffix("\n")


def _is_chained(error: BaseException) -> bool:
    return error.__cause__ is not None or (
        error.__context__ is not None and not error.__suppress_context__
    )


def _frames(raised: TracebackType) -> str:
    codes: list[CodeType] = []
    place: list[tuple[int, int]] = []
    one: TracebackType | None = raised
    while one is not None and len(codes) <= _MOST_FRAMES:
        code = one.tb_frame.f_code
        codes.append(code)
        place.append((id(code), one.tb_lasti))
        one = one.tb_next
    if one is not None:
        return _formatted(raised)
    if (kept := _kept.get(key := tuple(place))) is None:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        kept = _kept[key] = (codes, _formatted(raised))
    return kept[1]


def _formatted(raised: TracebackType) -> str:
    return "Traceback (most recent call last):\n" + "".join(traceback.format_tb(raised))
