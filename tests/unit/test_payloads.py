"""Large values between MongoDB's bytes and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bson
import orjson
import pytest
from bson.codec_options import CodecOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api import responses
from service.store import payloads
from service.store.payloads import Packed, _opened
from tests.factories import new_job_document
from tests.unit.test_strict_json import TEXT, VALUES

OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True)
AT = datetime(2030, 1, 1, tzinfo=UTC)
LARGE = [{"number": number, "text": "é" * 10, "none": None} for number in range(2_000)]


@pytest.mark.parametrize("member", ["payload", "result"])
@pytest.mark.parametrize("value", [LARGE, {"a": LARGE, "_id": 1}, "x" * 100_000, 5, {}])
def test_a_document_is_the_same_whatever_stays_packed(member: str, value: Any) -> None:
    document = new_job_document() | {
        "history": [{"attempt": 1, "started_at": AT, "finished_at": AT, "x": b"x"}],
        "cancel_requested": True,
        "progress": 0.5,
        "expires_at": AT,
        member: value,
        "claims": 2**40,
    }
    raw = bson.encode(document)
    opened, plain = _opened(raw, OPTIONS), bson.decode(raw, OPTIONS)
    is_packed = isinstance(opened[member], Packed)
    assert is_packed == (len(raw) > 50_000 and not isinstance(value, str))
    assert list(opened) == list(plain)
    for name, value_there in plain.items():
        if not isinstance(opened[name], Packed):
            assert repr(opened[name]) == repr(value_there)
    assert orjson.loads(responses.dumps(responses.event(opened)))[member] == plain[member]


@settings(max_examples=200)
@given(st.dictionaries(TEXT, VALUES, max_size=6), st.integers(1, 60))
def test_in_pieces_it_is_the_same(value: dict[str, Any], piece_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "_PIECE_BYTES", piece_bytes)
        packed = Packed(3, bson.encode({"p": value})[7:-1], OPTIONS)
        assert responses._json_of(packed) == responses.dumps(value)


def test_a_packed_value_is_shown_as_any_other() -> None:
    document = new_job_document(payload={"x": LARGE}) | {"result": LARGE}
    opened = _opened(bson.encode(document), OPTIONS)
    assert responses.is_large(opened)
    shown = responses.dumps(responses.event(opened))
    plain = bson.decode(bson.encode(document), OPTIONS)
    assert shown == responses.dumps(responses.event(plain))
    assert orjson.loads(shown)["result"] == LARGE
