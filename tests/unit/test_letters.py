"""Dead letters by the bundle."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from service.queue.letters import bundled, job_ids


def letter(job_id: str, type_: str = "email", retries: int = 0) -> dramatiq.Message[Any]:
    failed = {"args": [job_id], "actor_name": type_, "queue_name": "default", "kwargs": {}}
    tries = {"retries": retries, "max_retries": 4}
    return dramatiq.Message("dead_letter", "dead_letter", (failed, tries), {}, {"x": 1})


def ids(message: dramatiq.Message[Any]) -> list[str]:
    return job_ids(message.args[0])


def test_letters_of_one_type_are_one_message_in_their_order() -> None:
    (bundle,) = bundled([letter(str(i)) for i in range(7)])
    assert ids(bundle) == [str(i) for i in range(7)]
    first = letter("0")
    assert (bundle.actor_name, bundle.queue_name) == (first.actor_name, first.queue_name)
    assert bundle.args[0] == first.args[0] | {"args": ids(bundle)}
    assert (bundle.args[1], bundle.options) == (first.args[1], first.options)


def test_one_letter_stays_what_it_is() -> None:
    (bundle,) = bundled([letter("a")])
    assert bundle.args == letter("a").args


def test_letters_of_other_types_or_tries_are_messages_of_their_own() -> None:
    letters = [letter("a"), letter("b", "sms"), letter("c", retries=2), letter("d")]
    assert [ids(m) for m in bundled(letters)] == [["a", "d"], ["b"], ["c"]]


def test_a_bundle_is_bounded() -> None:
    bundles = bundled([letter(str(i)) for i in range(1_201)] + [letter("x", "sms")])
    assert sorted(len(ids(m)) for m in bundles) == [1, 201, 500, 500]


def test_of_nothing_nothing_is_made() -> None:
    assert bundled([]) == []


@pytest.mark.parametrize("junk", [None, 1, "a", [], {}, {"args": None}, {"args": "ab"}])
def test_a_forged_letter_names_no_job(junk: Any) -> None:
    assert job_ids(junk) == []


def test_what_is_no_id_in_a_forged_letter_is_left_out() -> None:
    assert job_ids({"args": [1, "a", None, ["b"], {"$gt": ""}]}) == ["a"]
