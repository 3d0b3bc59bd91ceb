"""Strict JSON: what is read, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import pytest

from tests.api.json_cases import EITHER, INVALID, VALID
from tests.api.server import Web

CASES = (
    [pytest.param(body, 422, id=f"y_{name}") for name, body in VALID.items()]
    + [pytest.param(body, 400, id=f"n_{name}") for name, body in INVALID.items()]
    + [pytest.param(body, status, id=f"i_{name}") for name, (body, status) in EITHER.items()]
)


@pytest.mark.parametrize(("body", "status"), CASES)
def test_a_document_is_read_or_refused(web: Web, body: bytes, status: int) -> None:
    answer = web.send(body)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert answer.elapsed.total_seconds() < 1


def test_there_are_as_many_cases_as_in_the_public_suite() -> None:
    assert len(CASES) >= 318


@pytest.mark.parametrize("name", VALID)
def test_a_valid_document_survives_as_a_payload(web: Web, name: str) -> None:
    wrapped = b'{"type":"simulate","payload":{"result":' + VALID[name] + b"}}"
    answer = web.send(wrapped)
    assert answer.status_code == 202
    assert web.get(answer.json()["id"]).status_code == 200
