"""Messages: Dramatiq's JSON, and hints at jobs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from service.queue.former import job_id_of
from service.queue.messages import OrjsonEncoder, hint_in, hint_message, job_id_in, lane_message
from tests.factories import make_hint
from tests.former_version import message_id_of

encoder = OrjsonEncoder()


def test_a_hint_carries_the_id_and_nothing_else_of_its_job() -> None:
    hint = make_hint(priority="high")
    message = json.loads(hint_message(hint).encode())
    assert message["args"] == [hint.job_id]
    assert message["kwargs"] == {}
    assert (message["actor_name"], message["queue_name"]) == ("email", "default")
    assert set(message["options"]) == {"priority", "v"}


def test_a_hint_survives_the_way_there_and_back() -> None:
    message = hint_message(make_hint())
    assert dramatiq.Message.decode(message.encode()) == message


def test_the_short_way_to_json_says_the_same() -> None:
    hint = make_hint(priority="low")
    data = lane_message(hint)
    message, expected = dramatiq.Message.decode(data), hint_message(hint)
    assert message.copy(message_timestamp=0) == expected.copy(message_timestamp=0)
    assert (job_id_in(data), hint_in(hint.queue, data)) == (hint.job_id, hint)


def test_plain_dramatiqs_encoder_reads_ours() -> None:
    """During a deploy, or by a tool that knows only Dramatiq."""
    message = hint_message(make_hint())
    theirs = dramatiq.JSONEncoder().decode(message.encode())
    assert theirs["args"] == list(message.args)


@pytest.mark.parametrize("key", [b"", b".", b"no-dot", b"\xff\xfe.1", b"a.b.c"])
def test_any_id_in_redis_gives_some_job_id(key: bytes) -> None:
    assert isinstance(job_id_of(key), str)


def test_the_id_of_a_former_versions_message_tells_its_job() -> None:
    assert job_id_of(message_id_of("abc").encode()) == "abc"


JUNK = [
    b"",
    b"null",
    b"5",
    b"[]",
    b'"text"',
    b"{",
    b"{}{}",
    b'{"a": NaN}',
    b"\xff\xfe",
    b"\x80\x04K\x01.",  # a pickle
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", JUNK, ids=lambda data: repr(data[:12]))
def test_junk_is_a_decode_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(DecodeError):
        encoder.decode(data)


@given(st.binary())
def test_no_bytes_break_the_decoder_otherwise(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert isinstance(encoder.decode(data), dict)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), json_values))
def test_json_survives_the_way_there_and_back(message: dict[str, Any]) -> None:
    assert encoder.decode(encoder.encode(message)) == message
