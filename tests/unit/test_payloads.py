"""Large values between MongoDB's bytes and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bson
import orjson
import pytest
from bson.codec_options import CodecOptions

from service.api import answers
from service.store.payloads import Packed, _opened
from tests.factories import new_job_document

OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True)
LARGE = [{"number": number, "text": "é" * 10, "none": None} for number in range(2_000)]


@pytest.mark.parametrize("member", ["payload", "result"])
@pytest.mark.parametrize("value", [LARGE, {"a": LARGE, "_id": 1}, "x" * 100_000, 5, {}])
def test_a_document_is_the_same_whatever_stays_packed(member: str, value: Any) -> None:
    document = new_job_document() | {
        "history": [{"attempt": 1, "started_at": datetime(2030, 1, 1, tzinfo=UTC), "x": b"x"}],
        "cancel_requested": True,
        "progress": 0.5,
        "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
        member: value,
        "claims": 2**40,
    }
    raw = bson.encode(document)
    opened, plain = _opened(raw, OPTIONS), bson.decode(raw, OPTIONS)
    is_packed = isinstance(opened[member], Packed)
    assert is_packed == (len(raw) > 50_000 and not isinstance(value, str))
    assert list(opened) == list(plain)
    packed_members = {name: v.opened() for name, v in opened.items() if isinstance(v, Packed)}
    assert repr(opened | packed_members) == repr(plain)


def test_a_packed_value_is_shown_as_any_other() -> None:
    document = new_job_document(payload={"x": LARGE}) | {"result": LARGE}
    opened = _opened(bson.encode(document), OPTIONS)
    assert answers.is_large(opened)
    shown = answers.dumps(answers.event(opened))
    plain = bson.decode(bson.encode(document), OPTIONS)
    assert shown == answers.dumps(answers.event(plain))
    assert orjson.loads(shown)["result"] == LARGE
