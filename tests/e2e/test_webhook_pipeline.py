"""`webhook` through the whole product: posted to a web, delivered by a worker, signed, retried."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from infra.servers import free_port
from tests.faults.stack import Stack

pytestmark = [pytest.mark.e2e]
SECRET = "whsec_" + "c2Vj" * 8
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver(ThreadingHTTPServer):
    """Answers by path: `/ok` 200, `/gone` 410, `/elsewhere` 302, `/busy` 503 for a second, then
    200; notes what came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.came: list[tuple[float, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", free_port()), _Answering)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def at(self, path: str) -> list[tuple[float, str, dict[str, str], bytes]]:
        return [request for request in self.came if request[1] == path]


class _Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        first = not self.server.at(self.path)
        self.server.came.append((time.monotonic(), self.path, headers, content))
        status = {"/gone": 410, "/elsewhere": 302, "/busy": 503 if first else 200}
        self.send_response(status.get(self.path, 200))
        self.send_header("Location", self.server.url("/ok"))
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(b"noted")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Stack]:
    """The product, allowed to deliver to the receiver on loopback."""
    env = {
        "WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{receiver.server_port}",
        "WEBHOOK_ALLOW_PRIVATE_NETWORKS": "1",
        "WEBHOOK_SECRETS": SECRET,
    }
    with Stack(tmp_path_factory.mktemp("hooked"), webs=1, workers=1, env=env) as stack:
        yield stack


def test_an_event_arrives_signed_with_its_id_and_trace(hooked: Stack, receiver: Receiver) -> None:
    payload = {
        "url": receiver.url("/ok"),
        "body": {"order": 7, "$x.y": 2**53 + 1},
        "headers": {"X-A": "b"},
    }
    posted = hooked.api.http.post(
        "/events", json={"type": "webhook", "payload": payload}, headers={"traceparent": TRACE}
    )
    seen = hooked.api.wait_final(posted.json()["id"])
    assert (seen["status"], seen["attempts"], seen["payload"]) == ("completed", 1, payload)
    assert seen["result"]["status_code"] == 200
    assert seen["result"]["answer"] == "noted"
    [(_, _, headers, content)] = receiver.at("/ok")
    assert Webhook(SECRET).verify(content, headers) == payload["body"]
    assert headers["webhook-id"] == seen["id"]
    assert (headers["x-a"], headers["traceparent"]) == ("b", TRACE)


def test_a_busy_receiver_gets_it_again_when_it_said(hooked: Stack, receiver: Receiver) -> None:
    event = hooked.api.post("webhook", {"url": receiver.url("/busy")})
    seen = hooked.api.wait_final(event)
    assert [entry["outcome"] for entry in seen["history"]] == ["error", "completed"]
    first, second = receiver.at("/busy")
    assert second[0] - first[0] >= 1
    assert first[2]["webhook-id"] == second[2]["webhook-id"] == event


def test_the_receiver_takes_it_from_a_worker_whose_hosts_clock_is_an_hour_ahead(
    hooked: Stack, receiver: Receiver
) -> None:
    (skew := hooked.folder / "skew").write_text("3600")
    with hooked.only_workers(1, SKEW_FILE=str(skew), EVENT_TYPE_MODULES="tests.faults.skewed"):
        event = hooked.api.post("webhook", {"url": receiver.url("/ahead"), "body": 1})
        assert hooked.api.wait_final(event)["status"] == "completed"
    [(_, _, headers, content)] = receiver.at("/ahead")
    assert Webhook(SECRET).verify(content, headers) == 1


@pytest.mark.parametrize(("path", "why"), [("/gone", "410"), ("/elsewhere", "redirects")])
def test_final_answers_fail_the_event_at_once(
    hooked: Stack, receiver: Receiver, path: str, why: str
) -> None:
    seen = hooked.api.wait_final(hooked.api.post("webhook", {"url": receiver.url(path)}))
    assert (seen["status"], seen["attempts"]) == ("failed", 1)
    assert seen["error"]["reason"] == "rejected"
    assert why in seen["error"]["message"]
    assert len(receiver.at(path)) == 1


@pytest.mark.parametrize(
    ("payload", "pointer"),
    [
        ({"url": "https://example.com/"}, "/payload/url"),
        ({"url": "http://169.254.169.254/"}, "/payload/url"),
        ({"url": "http://2130706433/"}, "/payload/url"),
        ({"url": "http://127.0.0.1:1/"}, "/payload/url"),
        ({"url": None}, "/payload/url"),
        ({}, "/payload/url"),
        ({"url": "URL", "headers": {"Host": "a"}}, "/payload/headers/Host"),
        ({"url": "URL", "headers": {"X-A": 1}}, "/payload/headers/X-A"),
        ({"url": "URL", "headers": {"X-A": "a\r\nB: c"}}, "/payload/headers/X-A"),
        ({"url": "URL", "method": "GET"}, "/payload/method"),
    ],
)
def test_what_may_not_be_sent_is_refused_at_the_edge(
    hooked: Stack, receiver: Receiver, payload: dict[str, Any], pointer: str
) -> None:
    if payload.get("url") == "URL":
        payload = {**payload, "url": receiver.url("/ok")}
    answer = hooked.api.try_post("webhook", payload)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_the_openapi_description_has_the_payload(hooked: Stack) -> None:
    described = hooked.api.http.get("/openapi.json").text
    assert "one of the allowed hosts" in described
