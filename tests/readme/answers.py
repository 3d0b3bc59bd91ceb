"""Compares what a block prints with what the page shows of it.

The same but for what nobody can know before: ids, times, tags, and the names of processes. JSON may
be laid out otherwise, and of an answer's headers only those are compared that are shown.
"""

from __future__ import annotations

import json
import re
from typing import Any

TOKEN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"  # an event's id
    r'|(?<=")[0-9a-f]{24}(?=")'  # an ETag
)
"""What later blocks use of an answer."""
_DIFFERS = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    r'|(?<="worker":")[^"]*'
    r'|(?<="request_id":")[^"]*'
    r"|(?<=x-request-id: ).*"
)


def in_order(printed: str, shown: str, language: str) -> tuple[str, str]:
    """Both in one form, so that equal answers are equal texts."""
    if language == "json":
        return _compact(printed), _compact(shown)
    if language == "http":
        return _http(printed, shown)
    return printed.strip(), shown.strip()


def masked(text: str) -> str:
    return _DIFFERS.sub("*", TOKEN.sub("*", text))


def _compact(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)


def _http(printed: str, shown: str) -> tuple[str, str]:
    """Status, the headers that are shown, in that order, and the body."""
    (status, headers, body), (told, names, told_body) = _parts(printed), _parts(shown)
    lines = [f"{name}: {headers.get(name, 'is not there')}" for name in names]
    told_lines = [f"{name}: {value}" for name, value in names.items()]
    return "\n".join([status, *lines, body]), "\n".join([told, *told_lines, told_body])


def _parts(answer: str) -> tuple[str, dict[str, str], str]:
    """The status code, headers by lower-case name, the body. The phrase beside the code depends on
    Python's version."""
    head, _, body = answer.replace("\r\n", "\n").strip().partition("\n\n")
    status, *lines = head.splitlines()
    pairs = [line.partition(":") for line in lines]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return status.split()[1], headers, _compact(body) if body.strip() else ""


def unlike(printed: Any, shown: Any, place: str = "") -> list[str]:
    """Where two JSON values differ in form: members, types, and true and false. A null that is
    shown stands for any value, an empty object for any object; of a list, each element is held
    against the first that is shown."""
    if shown is None:
        return []
    if isinstance(shown, dict) and isinstance(printed, dict):
        return _unlike_members(printed, shown, place) if shown else []
    if isinstance(shown, list) and isinstance(printed, list):
        return _unlike_elements(printed, shown, place)
    fits = printed is shown if isinstance(shown, bool) else _kind(printed) == _kind(shown)
    return [] if fits else [f"{place}: {printed!r}"]


def _kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def _unlike_members(printed: Any, shown: Any, place: str) -> list[str]:
    if printed.keys() != shown.keys():
        return [f"{place}: members {sorted(printed)}"]
    return [
        fault for name in shown for fault in unlike(printed[name], shown[name], f"{place}/{name}")
    ]


def _unlike_elements(printed: Any, shown: Any, place: str) -> list[str]:
    if not shown:
        return []
    if not printed:
        return [f"{place}: is empty"]
    return [
        fault
        for number, element in enumerate(printed)
        for fault in unlike(element, shown[0], f"{place}/{number}")
    ]
