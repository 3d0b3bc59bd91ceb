"""Web processes that die or are stopped while clients talk to them."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.faults.api import Api
from tests.faults.stack import Stack
from tests.faults.waiting import eventually


def post_until_accepted(api: Api, key: str) -> str:
    """What a client does that got no answer: the same again, with its key."""

    def accepted() -> str | None:
        answer = api.try_post("journal.sync", {"n": 1}, key=key)
        return answer.json()["id"] if answer.status_code == 202 else None

    return eventually(accepted, "the post is accepted", within=15) or ""


@pytest.mark.parametrize("point", ["web.before_insert", "web.after_insert"])
def test_a_client_that_got_no_answer_gets_the_same_event_by_its_key(
    stack: Stack, point: str
) -> None:
    with stack.web(CRASH_POINT=point) as web:
        with pytest.raises(httpx.TransportError):
            stack.api_of(web).try_post("journal.sync", {"n": 1}, key="mine")
        stored = stack.database["jobs"].count_documents({"idempotency_key": "mine"})
        assert stored == (1 if point == "web.after_insert" else 0)
    event = post_until_accepted(stack.api, "mine")
    stack.api.wait_final(event)
    assert stack.database["jobs"].count_documents({"idempotency_key": "mine"}) == 1
    assert len(stack.journal.ends(event)) == 1


def test_an_event_whose_web_died_before_it_could_send_a_message_runs_within_five_seconds(
    stack: Stack,
) -> None:
    with stack.web(CRASH_POINT="web.after_insert") as web:
        with pytest.raises(httpx.TransportError):
            stack.api_of(web).try_post("journal.sync", {"n": 2})
        died = time.monotonic()
        eventually(lambda: stack.database["jobs"].find_one({"payload.n": 2, "status": "completed"}))
        assert time.monotonic() - died < 5


def test_a_killed_web_is_replaced_and_what_it_accepted_completes(stack: Stack) -> None:
    events = [stack.api.post("journal.sync") for _ in range(20)]
    stack.supervisor.kill(stack.webs[0])
    for event in events:
        eventually(lambda e=event: stack.api.get(e)["status"] == "completed", within=15)


def test_a_stopping_web_answers_what_is_in_flight_and_resets_no_connection(stack: Stack) -> None:
    with stack.web() as web:
        api = stack.api_of(web)
        statuses: list[int] = []
        broken: list[Exception] = []
        stopped = threading.Event()

        def keep_posting() -> None:
            while not stopped.is_set():
                try:
                    statuses.append(api.try_post("journal.sync").status_code)
                except httpx.ConnectError:
                    return  # nobody listens any more: it has stopped in order
                except httpx.RemoteProtocolError as error:
                    # A kept connection was closed as the request was sent: a client may send it
                    # again. What must not happen is a request that got lost half-way.
                    if "without sending a response" not in str(error):
                        broken.append(error)
                    return
                except httpx.TransportError as error:
                    broken.append(error)
                    return

        threads = [threading.Thread(target=keep_posting) for _ in range(8)]
        for thread in threads:
            thread.start()
        eventually(lambda: len(statuses) > 100, "requests are under way")
        code = stack.remove(web, 15)
        stopped.set()
        for thread in threads:
            thread.join(10)
        assert (code, broken, set(statuses)) == (0, [], {202})
    assert stack.database["jobs"].count_documents({}) >= len(statuses)


def test_a_waiting_get_is_answered_though_the_web_is_stopped(stack: Stack) -> None:
    with stack.web() as web:
        event = stack.api.post("journal.async", {"duration_ms": 1_500})
        answers: list[httpx.Response] = []
        api = stack.api_of(web)
        url, wait = f"/events/{event}", {"Prefer": "wait=10"}
        thread = threading.Thread(
            target=lambda: answers.append(api.http.get(url, headers=wait, timeout=15))
        )
        thread.start()
        stack.wait_held(event)
        web.terminate()
        thread.join(15)
        assert [a.status_code for a in answers] == [200]
        assert answers[0].json()["status"] in {"processing", "completed"}
