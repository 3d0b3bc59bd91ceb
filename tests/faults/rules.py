"""What a history must not show. Each rule gives its violations, under its own name."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tests.faults.facts import Facts, Violation
from tests.faults.history import FAIL, OK, UNKNOWN, Document
from tests.faults.journal import Effect

FINAL = frozenset({"completed", "failed", "cancelled"})


def lost(facts: Facts) -> Iterator[Violation]:
    """Accepted, and not there."""
    for event, post in facts.history.accepted.items():
        if event not in facts.documents:
            yield Violation("lost", event, "was accepted and is not in MongoDB")
        for get in facts.gets[event]:
            if get.status == 404 and get.began >= post.ended:
                yield Violation("lost", event, "was accepted, and a GET after it answered 404")


def stuck(facts: Facts) -> Iterator[Violation]:
    """No final status after healing and draining."""
    for event, document in facts.documents.items():
        if document["status"] not in FINAL:
            yield Violation("stuck", event, f"is still {document['status']}")


def duplicated(facts: Facts) -> Iterator[Violation]:
    """Two jobs for one wish, or two effective completions of one job."""
    yield from _two_jobs(facts)
    for event, document in facts.documents.items():
        completions = sum(h["outcome"] == "completed" for h in document["history"])
        if completions > 1:
            yield Violation("duplicated", event, f"was completed {completions} times")
        yield from _ran_after_completion(facts, event)
        yield from _ran_beside_itself(facts, event)


def _two_jobs(facts: Facts) -> Iterator[Violation]:
    by_mark: dict[Any, set[str]] = defaultdict(set)
    for event, document in facts.documents.items():
        by_mark["mark", document["payload"].get("n")].add(event)
        if "idempotency_key" in document:
            by_mark["key", document["idempotency_key"]].add(event)
    for call in facts.history.calls:
        if call.kind == "post" and call.outcome == OK and call.event and call.key is not None:
            by_mark["key", call.key].add(call.event)
    for (what, value), events in by_mark.items():
        if len(events) > 1 and value is not None:
            yield Violation("duplicated", min(events), f"{len(events)} jobs for {what} {value}")


def _ran_after_completion(facts: Facts, event: str) -> Iterator[Violation]:
    known = [g.ended for g in facts.gets[event] if g.seen and g.seen["status"] == "completed"]
    late = [e for e in facts.effects[event] if e.what == "start" and known and e.at > min(known)]
    if late:
        yield Violation("duplicated", event, "was run again after a GET had seen it completed")


def _ran_beside_itself(facts: Facts, event: str) -> Iterator[Violation]:
    """Two runs at once, though nothing had happened to the first one's process."""
    ends = {e.token: e.at for e in facts.effects[event] if e.what != "start"}
    starts = [e for e in facts.effects[event] if e.what == "start"]
    for first, second in itertools.pairwise(starts):
        over = ends.get(first.token)
        if over is not None and second.at < over and not _was_hurt(facts, first, second.at):
            yield Violation("duplicated", event, f"ran beside itself in process {first.pid}")


def _was_hurt(facts: Facts, run: Effect, until: float) -> bool:
    return any(facts.hurts(f, run.pid, run.at, until) for f in facts.history.faults)


def phantom(facts: Facts) -> Iterator[Violation]:
    """What nobody asked for."""
    outcomes: dict[Any, set[str]] = defaultdict(set)
    for call in facts.history.calls:
        if call.kind == "post":
            outcomes[call.mark].add(call.outcome)
    for event, document in facts.documents.items():
        asked = outcomes.get(document["payload"].get("n"), set())
        if not asked:
            yield Violation("phantom", event, "was posted by nobody")
        elif asked == {FAIL}:
            yield Violation("phantom", event, "is there, though its post was refused")
        yield from _unfounded_result(facts, event, document)
    for event in facts.effects.keys() - facts.documents.keys():
        if facts.effects[event] and event not in facts.history.accepted:
            yield Violation("phantom", event, "had an effect and is not in MongoDB")


def _unfounded_result(facts: Facts, event: str, document: Document) -> Iterator[Violation]:
    if document["status"] != "completed":
        return
    token = (document["result"] or {}).get("token")
    if all(e.token != token for e in facts.effects[event] if e.what == "end"):
        yield Violation("phantom", event, f"has a result that no run of it gave: {token}")


def regressed(facts: Facts) -> Iterator[Violation]:
    """A GET that went backwards, or something final that changed."""
    for event, gets in facts.gets.items():
        seen = [(g.began, g.ended, g.seen) for g in gets if g.seen is not None]
        if event in facts.documents:
            seen.append((float("inf"), float("inf"), facts.documents[event]))
        for (began, ended, earlier), (later_began, later_ended, later) in _in_order(seen):
            if ended > later_began:
                continue
            retried = any(
                call.outcome in (OK, UNKNOWN) and call.began < later_ended and call.ended > began
                for call in facts.asked["retry", event]
            )
            for detail in _backwards(earlier, later, retried, facts.history.history_limit):
                yield Violation("regressed", event, detail)


def _in_order(seen: list[Any]) -> Iterator[tuple[Any, Any]]:
    for i, earlier in enumerate(seen):
        for later in seen[i + 1 :]:
            yield earlier, later


def _backwards(earlier: Document, later: Document, retried: bool, limit: int) -> Iterator[str]:
    if earlier["status"] in FINAL and not (retried and earlier["status"] != "completed"):
        for name in ("status", "result", "attempts"):
            if earlier[name] != later[name]:
                yield f"final {name} changed from {earlier[name]!r} to {later[name]!r}"
    runs, later_runs = _runs(earlier), _runs(later)
    if len(later_runs) < limit and later_runs[: len(runs)] != runs:
        yield f"its history changed from {runs} to {later_runs}"
    if later["max_attempts"] < earlier["max_attempts"]:
        yield "its budget shrank"


def _runs(document: Document) -> list[tuple[Any, ...]]:
    return [(h["attempt"], h["worker"], h["outcome"]) for h in document["history"]]


def over_budget(facts: Facts) -> Iterator[Violation]:
    """More attempts than were granted, or a number that doesn't tell what was run."""
    for event, document in facts.documents.items():
        charged = sum(h["outcome"] != "released" for h in document["history"])
        if max(charged, document["attempts"]) > document["max_attempts"]:
            yield Violation("over budget", event, f"{charged} of {document['max_attempts']}")
        is_whole = len(document["history"]) < facts.history.history_limit
        if document["status"] in FINAL and is_whole and charged != document["attempts"]:
            yield Violation(
                "over budget", event, f"{document['attempts']} attempts, {charged} in the history"
            )


def unexplained(facts: Facts) -> Iterator[Violation]:
    """An outcome for which nothing that was done to the system, or asked of it, is the reason."""
    for event, document in facts.documents.items():
        for entry in document["history"]:
            if entry["outcome"] == "crash" and not _may_have_died(facts, entry):
                yield Violation("unexplained", event, f"crash in unhurt {entry['worker']}")
        plan = facts.history.plans.get(document["payload"].get("n"))
        reason = (document.get("error") or {}).get("reason")
        if document["status"] == "failed" and plan and plan.succeeds and reason != "crash":
            yield Violation("unexplained", event, f"failed for {reason}, but should succeed")
        if document["status"] == "cancelled" and not facts.asked["cancel", event]:
            yield Violation("unexplained", event, "is cancelled, and nobody asked for it")


def _may_have_died(facts: Facts, entry: Document) -> bool:
    pid = int(entry["worker"].split("-")[-2])
    began = facts.monotonic(entry.get("started_at"))
    until = facts.monotonic(entry.get("finished_at"))
    return pid in facts.suicides or any(
        facts.hurts(fault, pid, began, until) for fault in facts.history.faults
    )


def miscounted(facts: Facts) -> Iterator[Violation]:
    """Totals that are too high; or too low, where no process was killed with its last counts."""
    counters = facts.history.counters
    if counters is None:
        return
    exact = not any(fault.kind in ("kill", "freeze") for fault in facts.history.faults)
    exact = exact and not any(facts.hurts(f, 0, None, None) for f in facts.history.faults)
    for name, actual in _totals(facts).items():
        counted = sum(_number(d, name) for d in counters.values())
        if counted > actual or (exact and counted < actual):
            yield Violation("miscounted", name, f"{counted:g} were counted, {actual} happened")


def _totals(facts: Facts) -> dict[str, int]:
    entries = [h for d in facts.documents.values() for h in d["history"]]
    return {
        "received": len(facts.documents),
        "completed": sum(d["status"] == "completed" for d in facts.documents.values()),
        "retried": sum(h["attempt"] > 1 and h["outcome"] != "released" for h in entries),
    }


def _number(document: Document, name: str) -> float:
    return float(document.get(name, 0))


RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    lost,
    duplicated,
    phantom,
    regressed,
    stuck,
    over_budget,
    unexplained,
    miscounted,
)
