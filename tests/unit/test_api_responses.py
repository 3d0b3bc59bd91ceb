from __future__ import annotations

import orjson

from service.api import responses
from service.api.times import shown
from service.store import Accepted
from tests.factories import new_job_document


def test_what_is_written_by_hand_is_json() -> None:
    document = new_job_document(type="a-type.with_0")
    assert orjson.loads(responses.accepted_json(Accepted(document))) == {
        "id": document["_id"],
        "type": "a-type.with_0",
        "status": "pending",
        "created_at": shown(document["created_at"]),
        "links": {"self": f"/events/{document['_id']}"},
    }


def test_etags_are_compared_weakly() -> None:
    tag = responses.etag(b"body")
    assert responses.matches(tag, tag)
    assert responses.matches(f'W/{tag} , "x"', tag)
    assert responses.matches("*", tag)
    assert not responses.matches('"x"', tag)
    assert responses.etag(b"body2") != tag
