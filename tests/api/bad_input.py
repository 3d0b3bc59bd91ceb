"""Requests that must be refused: a table of what is sent, the status, and the pointer named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}
GOOD = {"type": "simulate", "payload": {}}
MIB = 1_048_576


@dataclass(frozen=True)
class Case:
    """One request. `pointer`: one of those that the answer must name; None: it has no `errors`."""

    name: str
    status: int
    body: bytes | None = None
    pointer: str | None = None
    method: str = "POST"
    target: str = "/events"
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON))
    raw: bytes | None = None
    """Sent as it is, instead of all the others."""


def _event(name: str, pointer: str | None, /, **over: Any) -> Case:
    kept = {key: value for key, value in (GOOD | over).items() if value is not ...}
    return Case(name, 422, json.dumps(kept).encode(), pointer)


def _payload(name: str, pointer: str, payload: Any) -> Case:
    return _event(name, pointer, payload=payload)


def cases() -> list[Case]:
    """All of them; their names are unique."""
    return [
        *_no_json(),
        *_unstorable(),
        *_envelope(),
        *_times(),
        *_payloads(),
        *_webhooks(),
        *_sizes(),
        *_headers(),
        *_routes(),
        *_batches(),
        *_queries(),
        *_retries(),
        *_protocol(),
    ]


def _no_json() -> Iterator[Case]:
    bodies = {
        "an empty body": b"",
        "only blanks": b" \n\t ",
        "a cut body": b'{"type":"simulate","payload":{',
        "a cut string": b'{"type":"simul',
        "no JSON at all": b"type=simulate&payload=",
        "XML": b"<event/>",
        "two documents": json.dumps(GOOD).encode() * 2,
        "JSON lines": json.dumps(GOOD).encode() + b"\n" + json.dumps(GOOD).encode(),
        "a BOM": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        "a trailing comma": b'{"type":"simulate","payload":{},}',
        "a comment": b'{"type":"simulate",/* x */"payload":{}}',
        "single quotes": b"{'type':'simulate','payload':{}}",
        "NaN": b'{"type":"simulate","payload":{"result":NaN}}',
        "Infinity": b'{"type":"simulate","payload":{"result":Infinity}}',
        "minus Infinity": b'{"type":"simulate","payload":{"result":-Infinity}}',
        "1e400": b'{"type":"simulate","payload":{"result":1e400}}',
        "a number of 400 digits and a fraction": b'{"type":"simulate","payload":{"result":'
        + b"9" * 400
        + b".0}}",
        "a hexadecimal number": b'{"type":"simulate","payload":{"result":0x10}}',
        "a leading zero": b'{"type":"simulate","payload":{"result":007}}',
        "a duplicate key": b'{"type":"simulate","type":"simulate","payload":{}}',
        "a duplicate key inside": b'{"type":"simulate","payload":{"result":{"a":1,"a":2}}}',
        "a duplicate key, escaped": b'{"type":"simulate","payload":{},"p\\u0061yload":{}}',
        "invalid UTF-8": b'{"type":"simulate","payload":{"result":"\xff"}}',
        "Latin-1": '{"type":"simulate","payload":{"result":"\u00e9"}}'.encode("latin-1"),
        "overlong UTF-8": b'{"type":"simulate","payload":{"result":"\xc0\xaf"}}',
        "a surrogate in UTF-8": b'{"type":"simulate","payload":{"result":"\xed\xa0\x80"}}',
        "UTF-16": json.dumps(GOOD).encode("utf-16"),
        "UTF-32": json.dumps(GOOD).encode("utf-32-le"),
        "a raw control character": b'{"type":"simulate","payload":{"result":"a\x01"}}',
        "a raw newline in a string": b'{"type":"simulate","payload":{"result":"a\nb"}}',
        "a raw NUL": b'{"type":"simulate","payload":{"result":"\x00"}}',
        "100,000 lists deep": b"[" * 100_000 + b"]" * 100_000,
        "100,000 objects deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "100,000 deep and cut": b"[" * 100_000,
        "65 deep": b'{"type":"simulate","payload":{"result":' + b"[" * 63 + b"]" * 63 + b"}}",
    }
    return (Case(name, 400, body) for name, body in bodies.items())


def _unstorable() -> Iterator[Case]:
    frame = b'{"type":"simulate","payload":{"result":%s}}'
    values = {
        "an integer of 5,000 digits": (b"9" * 5_000, ""),
        "an integer beyond 64 bits": (b"9223372036854775808", ""),
        "a negative integer beyond 64 bits": (b"-9223372036854775809", ""),
        "an unsigned 64-bit integer": (b"18446744073709551615", ""),
        "a NUL in a string": (b'"a\\u0000b"', ""),
        "a NUL in a key": (b'{"a\\u0000b":1}', "/a\\u0000b"),
        "a lone surrogate": (b'"\\ud800"', ""),
        "a lone surrogate in a key": (b'{"\\udfff":1}', "/\\udfff"),
        "a lone surrogate in a list": (b'[1,"\\ud800x"]', "/1"),
        "a NUL deep inside": (b'{"a":[{"b/c~d":"\\u0000"}]}', "/a/0/b~1c~0d"),
    }
    for name, (value, inside) in values.items():
        yield Case(name, 422, frame % value, f"/payload/result{inside}")
    yield Case("a NUL in the type", 422, b'{"type":"sim\\u0000ulate","payload":{}}', "/type")


def _envelope() -> Iterator[Case]:
    for name, value in {"null": "null", "a list": "[]", "a text": '"x"', "a number": "1"}.items():
        yield Case(f"{name} instead of an event", 422, value.encode(), "")
    yield _event("no type", "/type", type=...)
    yield _event("no payload", "/payload", payload=...)
    yield Case("an empty object", 422, b"{}", "/payload")
    for field_name in ("type", "payload", "priority", "max_attempts", "delay_ms", "run_at"):
        yield _event(f"{field_name} null", f"/{field_name}", **{field_name: None})
    yield _event("an unknown type", "/type", type="simulat")
    yield _event("an empty type", "/type", type="")
    yield _event("a type of 10,000 letters", "/type", type="x" * 10_000)
    yield _event("a type with CRLF and colours", "/type", type="a\r\n\x1b[31mb")
    yield _event("an operator as type", "/type", type={"$gt": ""})
    yield _event("a number as type", "/type", type=1)
    yield _event("the dead-letter queue's name as type", "/type", type="dead_letter")
    for name, value in {"list": [], "text": "{}", "number": 1, "boolean": True}.items():
        yield _event(f"a {name} as payload", "/payload", payload=value)
    yield _event("an unknown field", "/colour", colour="red")
    yield _event("a field in capitals", "/Type", Type="simulate")
    for field_name in (
        "status",
        "attempts",
        "_id",
        "id",
        "claims",
        "result",
        "created_at",
        "queue",
    ):
        yield _event(f"mass assignment of {field_name}", f"/{field_name}", **{field_name: 1})
    yield _event("an idempotency key in the body", "/idempotency_key", idempotency_key="k")
    yield _event("an operator as a field", "/$set", **{"$set": {"status": "completed"}})
    for value in ("urgent", "HIGH", "", 1, ["high"]):
        yield _event(f"{value!r} as priority", "/priority", priority=value)
    for value in (0, -1, 101, 1.0, 1.5, "3", True, [3], 2**63 - 1):
        yield _event(f"{value!r} as max_attempts", "/max_attempts", max_attempts=value)
    for value in (0, 99, 86_400_001, -100, "1000", 100.5, False):
        yield _event(f"{value!r} as time_limit_ms", "/time_limit_ms", time_limit_ms=value)


def _times() -> Iterator[Case]:
    for value in (-1, 31_536_000_001, 1e3, "1000", True, {}):
        yield _event(f"{value!r} as delay_ms", "/delay_ms", delay_ms=value)
    texts = (
        *("", "now", "tomorrow", "2030", "2030-01-31", "12:00:00", "2030-01-31 12:00:00Z"),
        *("2030-01-31T12:00:00", "2030-01-31T12:00Z", "2030-02-30T12:00:00Z"),
        *("2030-13-01T12:00:00Z", "2030-01-31T25:00:00Z", "2030-01-31T12:00:61Z"),
        *("2030-01-31T12:00:00+25:00", "2030-01-31T12:00:00+0100", " 2030-01-31T12:00:00Z"),
        *("2030-01-31T12:00:00Z\n", "\u0662\u0660\u0663\u0660-01-31T12:00:00Z"),
        *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+01:00", "-2030-01-31T12:00:00Z"),
    )
    for value in (*texts, 1_900_000_000, None, ["2030-01-31T12:00:00Z"], {"$date": 1}):
        yield _event(f"{value!r} as run_at", "/run_at", run_at=value)
    both = {"run_at": "2001-01-01T00:00:00Z", "delay_ms": 0}
    yield _event("run_at and delay_ms", "/run_at", **both)


def _payloads() -> Iterator[Case]:
    for value in (-1, 86_400_001, "5", 1.5, True, None, {"$gt": 0}):
        yield _payload(f"{value!r} as duration_ms", "/payload/duration_ms", {"duration_ms": value})
    yield _payload("a wrong outcome", "/payload/outcome", {"outcome": "fame"})
    yield _payload("fail_times below 0", "/payload/fail_times", {"fail_times": -1})
    yield _payload("an unknown member", "/payload/colour", {"colour": "red"})
    yield _payload("an operator in the payload", "/payload/$where", {"$where": "sleep(1)"})
    yield _payload("a key to escape", "/payload/a~1b~0c", {"a/b~c": 1})
    yield _payload("two faults", "/payload/cpu_ms", {"duration_ms": -1, "cpu_ms": -1})


def _webhooks() -> Iterator[Case]:
    urls = {
        "no URL": ...,
        "a host that is not allowed": "https://example.org/",
        "a private address": "http://10.0.0.1/",
        "loopback": "http://127.0.0.1:8000/",
        "the cloud's metadata": "http://169.254.169.254/latest/meta-data/",
        "another scheme": "file:///etc/passwd",
        "no scheme": "hooks.example.com",
        "credentials": "https://user:secret@hooks.example.com/",
        "a text that is no URL": "http://[::1",
        "a number as URL": 5,
    }
    for name, url in urls.items():
        payload = {} if url is ... else {"url": url}
        yield _event(f"webhook: {name}", "/payload/url", type="webhook", payload=payload)


def _sizes() -> Iterator[Case]:
    large = b'{"type":"simulate","payload":{"result":"' + b"x" * MIB + b'"}}'
    yield Case("a body over 1 MiB", 413, large)
    yield Case("a batch over 16 MiB", 413, b"x" * (16 * MIB + 1), target="/events/batch")
    yield Case(
        "a declared size over 1 MiB and no body",
        413,
        raw=b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999\r\n\r\n",
    )
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    yield Case(
        "a streamed body over 1 MiB",
        413,
        raw=b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n",
    )
    yield Case(
        "a body that stops coming",
        408,
        raw=b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b'Content-Length: 32\r\n\r\n{"type":',
    )


def _headers() -> Iterator[Case]:
    good = json.dumps(GOOD).encode()
    for name in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        yield Case(f"Content-Type {name!r}", 415, good, headers={"Content-Type": name})
    for name in ("application/json; charset=utf-16", "application/jsonp", "json", "a/b/c", ";"):
        yield Case(f"Content-Type {name!r}", 415, good, headers={"Content-Type": name})
    yield Case("no Content-Type", 415, good, headers={})
    yield Case("gzip", 415, gzip.compress(good), headers=JSON | {"Content-Encoding": "gzip"})
    yield Case("called gzip", 415, good, headers=JSON | {"Content-Encoding": "gzip"})
    yield Case("called br", 415, good, headers=JSON | {"Content-Encoding": "br"})
    for name in ("text/html", "image/*", "application/xml", "application/json;q=0"):
        yield Case(f"Accept {name!r}", 406, good, headers=JSON | {"Accept": name})
    keys = {"256 characters": "k" * 256, "a blank": "a b", "no ASCII": "caf\u00e9", "nothing": ""}
    for name, key in keys.items():
        headers = JSON | {"Idempotency-Key": key}
        yield Case(f"an Idempotency-Key with {name}", 400, good, headers=headers)
    headers = JSON | {"Idempotency-Key": "k"}
    body = json.dumps({"events": [GOOD]}).encode()
    yield Case("an Idempotency-Key for a batch", 400, body, target="/events/batch", headers=headers)
    long = JSON | {f"X-Long-{i}": "x" * 4_000 for i in range(5)}
    yield Case("headers of 20,000 bytes", 431, good, headers=long)


def _routes() -> Iterator[Case]:
    good = json.dumps(GOOD).encode()
    for method in ("PUT", "PATCH", "DELETE", "TRACE"):
        yield Case(f"{method} /events", 405, good, method=method)
    yield Case("GET /events/batch", 405, None, method="GET", target="/events/batch")
    yield Case("POST /health", 405, b"{}", target="/health")
    an_id = "01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7"
    yield Case("POST to an event", 405, b"{}", target=f"/events/{an_id}")
    yield Case("GET of a cancel", 405, None, method="GET", target=f"/events/{an_id}/cancel")
    for target in ("/", "/event", "/events/x/y", "/v1/events", "/events//", "/.env", "/%00"):
        yield Case(f"POST {target}", 404, good, target=target)
    for target in (
        *(
            "//events",
            "///events",
            "/./events",
            "/events/",
            "/%2Fevents",
            "/%2fevents",
            "/.//events",
        ),
        *("//events/batch", "/events//batch", "/events/batch/", "/events%2Fbatch", "/%2e/events"),
        *(f"/events/{an_id}//cancel", f"/events/{an_id}/cancel/", "/events//retry"),
        *("//health", "/EVENTS", "//events/retry?status=failed"),
    ):
        yield Case(f"a POST that only looks like one of ours: {target}", 404, good, target=target)
    yield Case("a GET of no id", 404, None, method="GET", target="/events/")
    encoded = f"/events/{an_id}%2Fcancel"
    yield Case("an id with an encoded slash", 400, None, method="GET", target=encoded)
    large = b" " * 2 * MIB
    for target in ("//events/batch", "/events%2Fbatch"):
        yield Case(f"a large body for {target}", 413, large, target=target)
    ids = ("x", "1", an_id.upper(), an_id[:-1], an_id + "0", "null", "%24ne", "..", "*")
    for text in ids:
        yield Case(f"the id {text}", 400, None, method="GET", target=f"/events/{text}")
    yield Case("a UUIDv4", 400, None, method="GET", target=f"/events/{an_id.replace('-7', '-4')}")
    yield Case("an unknown id", 404, None, method="GET", target=f"/events/{an_id}")
    yield Case("cancel of an unknown id", 404, None, target=f"/events/{an_id}/cancel")
    yield Case("retry of an unknown id", 404, None, target=f"/events/{an_id}/retry")
    yield Case("cancel with a body", 422, b'{"force":true}', "", target=f"/events/{an_id}/cancel")
    yield Case("a query on POST", 400, good, target="/events?dry_run=true")


def _batches() -> Iterator[Case]:
    def batch(name: str, body: Any, pointer: str, status: int = 422) -> Case:
        return Case(name, status, json.dumps(body).encode(), pointer, target="/events/batch")

    yield batch("a batch of nothing", {"events": []}, "/events")
    yield batch("a batch of 1,001", {"events": [GOOD] * 1_001}, "/events")
    yield batch("a batch without events", {}, "")
    yield batch("a bare list as batch", [GOOD], "")
    yield batch("an object as events", {"events": {"0": GOOD}}, "")
    yield batch("null as events", {"events": None}, "")
    yield batch("a batch with more", {"events": [GOOD], "atomic": True}, "")


def _queries() -> Iterator[Case]:
    queries = (
        *("status=done", "status=", "status=pending&status=failed", "type=", "colour=red"),
        *("limit=0", "limit=201", "limit=-1", "limit=1.0", "limit=x", "limit=", "limit=%C2%B2"),
        *("cursor=", "cursor=x", "cursor=AaINlMpvd2eWbO9LMrndEblT", "cursor=" + "A" * 1_000),
        *("cursor=%7B%22%24gt%22%3A%22%22%7D", "cursor=AaINlMpvd2eWbO9LMrndEbl%3D"),
        *("created_after=yesterday", "created_after=2030-01-31", "created_before=1"),
        *("created_after=2030-01-31T12:00:00+01:00", "created_before=2030-02-30T00:00:00Z"),
        *("status[$ne]=failed", "status=%00", "type=" + "x" * 101, "Limit=1"),
    )
    for query in queries:
        name = query if len(query) < 60 else f"{query[:40]}... ({len(query)})"
        yield Case(f"?{name}", 400, None, method="GET", target=f"/events?{query}")
    yield Case("a query of 5,000", 414, None, method="GET", target="/events?type=" + "x" * 5_000)


def _retries() -> Iterator[Case]:
    def retry(name: str, body: Any, pointer: str) -> Case:
        return Case(name, 422, json.dumps(body).encode(), pointer, target="/events/retry")

    yield retry("retry of everything", {}, "")
    yield retry("retry of everything, dry", {"dry_run": True}, "")
    yield retry("retry of the completed", {"status": "completed"}, "/status")
    yield retry("retry by an operator", {"status": {"$ne": ""}}, "/status")
    yield retry("retry with an unknown filter", {"status": "failed", "id": "x"}, "/id")
    yield retry("retry since nonsense", {"created_after": "x"}, "/created_after")
    yield retry("retry with a text as dry_run", {"status": "failed", "dry_run": "no"}, "/dry_run")
    yield retry("retry by a list", [], "")
    yield Case("retry with nothing", 411, None, target="/events/retry")
    both = "/events/retry?status=failed"
    yield Case("retry with two filters", 400, b'{"status":"failed"}', target=both)
    yield Case("retry ?status=pending", 400, None, target="/events/retry?status=pending")
    yield Case("retry ?dry_run=1", 400, None, target="/events/retry?status=failed&dry_run=1")


def _protocol() -> Iterator[Case]:
    post = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    good = json.dumps(GOOD).encode()
    sized = b"Content-Length: %d\r\n" % len(good)
    raws: dict[str, tuple[int, bytes]] = {
        "no length and no body": (411, post + b"\r\n"),
        "a bad Content-Length": (400, post + b"Content-Length: ten\r\n\r\n" + good),
        "a negative Content-Length": (400, post + b"Content-Length: -1\r\n\r\n" + good),
        "two Content-Lengths": (400, post + sized + b"Content-Length: 1\r\n\r\n" + good),
        "Content-Length and chunks": (
            400,
            post + sized + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        "a bad chunk": (400, post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        "a NUL in a header": (400, post + b"X-Bad: a\0b\r\n\r\n"),
        "a header without a name": (400, post + b": x\r\n\r\n"),
        "a header of 9,000 bytes": (431, post + b"X-Long: " + b"x" * 9_000 + b"\r\n\r\n"),
        "a hundred headers": (431, post + b"X-A: 1\r\n" * 100 + b"\r\n"),
        "a target of 9,000 bytes": (414, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        "no HTTP": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    }
    for name, (status, raw) in raws.items():
        yield Case(name, status, raw=raw)
