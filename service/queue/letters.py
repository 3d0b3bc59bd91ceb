"""Dead letters by the bundle: one message for all jobs of a type that failed for good together.

A letter is what `Retries` sends to the dead-letter actor: the message that failed, as a dict whose
`args` are its job's id, and how often it was tried. A bundle is a letter with more ids. To an actor
that knows nothing of bundles it is the letter of the first one, and the sweep sends the others'.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import dramatiq

MOST_TOGETHER = 500

_Letter = dramatiq.Message[Any]


def bundled(letters: Iterable[_Letter]) -> list[_Letter]:
    """The letters of one type and as many tries as one message, up to 500 of them."""
    alike: dict[object, list[_Letter]] = defaultdict(list)
    for letter in letters:
        failed, tries = letter.args
        key = (letter.actor_name, failed["actor_name"], tries["retries"], tries["max_retries"])
        alike[key].append(letter)
    steps = range(0, max(map(len, alike.values()), default=0), MOST_TOGETHER)
    chunks = [group[i : i + MOST_TOGETHER] for group in alike.values() for i in steps]
    return [_bundle(chunk) for chunk in chunks if chunk]


def _bundle(letters: Sequence[_Letter]) -> _Letter:
    failed, tries = letters[0].args
    ids = [job_id for letter in letters for job_id in letter.args[0]["args"]]
    return dataclasses.replace(letters[0], args=({**failed, "args": ids}, tries))


def job_ids(failed: Any) -> list[str]:
    """Of a letter's first argument, which anybody may have put into Redis."""
    args = failed.get("args") if isinstance(failed, dict) else None
    return [one for one in args if isinstance(one, str)] if isinstance(args, list | tuple) else []
