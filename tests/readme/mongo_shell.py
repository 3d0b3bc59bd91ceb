"""As much of the Mongo shell's language as the queries in docs/ use, turned into PyMongo calls.

`db.COLLECTION.find(...)` or `.aggregate(...)`, then `.sort(...)` and `.limit(...)`; arguments
are object and array literals with bare keys, double-quoted texts, numbers, and dates that are
`new Date()` or `new Date(Date.now() - N * M)`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_KEY = re.compile(r"([{,]\s*)([$\w.]+)\s*:")
_DATE = re.compile(r"new Date\((?:Date\.now\(\) - ([\d *]+))?\)")
_CALL = re.compile(r"\.(\w+)\(")


@dataclass(frozen=True)
class Query:
    """One query: its comment, its collection, and its calls in order, as (name, arguments)."""

    comment: str
    collection: str
    calls: list[tuple[str, list[Any]]]

    def run(self, database: Any) -> list[dict[str, Any]]:
        """All that it finds."""
        made = database[self.collection]
        for name, arguments in self.calls:
            taken = [list(arguments[0].items())] if name == "sort" else arguments
            made = getattr(made, name)(*taken)
        return list(made)


def queries(text: str) -> list[Query]:
    """The queries, each below its comment, with blank lines between."""
    return [_query(one) for one in text.strip().split("\n\n")]


def _query(text: str) -> Query:
    comment, _, code = text.partition("\n")
    assert comment.startswith("// "), comment
    found = re.match(r"db\.(\w+)", code)
    assert found, code
    return Query(comment.removeprefix("// "), found[1], list(_calls(code, found.end())))


def _calls(code: str, position: int) -> Iterator[tuple[str, list[Any]]]:
    while position < len(code):
        found = _CALL.match(code, position)
        assert found, code[position:]
        end = _closing(code, found.end())
        yield found[1], _arguments(code[found.end() : end])
        position = end + 1


def _closing(code: str, position: int) -> int:
    """Where the parenthesis that was opened before `position` closes."""
    depth, in_text = 1, False
    while True:
        character = code[position]
        if character == '"':
            in_text = not in_text
        elif not in_text:
            depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
        position += 1


def _arguments(code: str) -> list[Any]:
    dated = _DATE.sub(lambda found: f'{{"new Date": "{found[1] or 0}"}}', code)
    quoted = _KEY.sub(r'\1"\2":', dated)
    arguments: list[Any] = json.loads(f"[{quoted}]", object_hook=_date)
    return arguments


def _date(made: dict[str, Any]) -> Any:
    if made.keys() != {"new Date"}:
        return made
    ago = math.prod(int(factor) for factor in made["new Date"].split("*"))
    return datetime.now(UTC) - timedelta(milliseconds=ago)
