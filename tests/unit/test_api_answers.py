from __future__ import annotations

import orjson

from service.api import answers
from service.store import Accepted
from tests.factories import new_job_document


def test_the_answer_written_by_hand_is_the_same() -> None:
    answer = Accepted(new_job_document(type="a-type.with_0"))
    assert orjson.loads(answers.accepted_json(answer)) == answers.accepted(answer)


def test_etags_are_compared_weakly() -> None:
    tag = answers.etag(b"body")
    assert answers.matches(tag, tag)
    assert answers.matches(f'W/{tag} , "x"', tag)
    assert answers.matches("*", tag)
    assert not answers.matches('"x"', tag)
    assert answers.etag(b"body2") != tag
