"""Lanes on real Redis: windows, turns, fronts, and what happens to junk."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dramatiq
import orjson
import pytest
import redis

from infra.servers import free_port
from service.job import Hint
from service.queue import redis_client
from service.queue.lanes import Lane, Lanes, Taken, Woken
from service.queue.messages import lane_message
from service.settings import Settings
from tests.factories import eventually, make_hint

EVENLY = (0, 0, 0)
"""No shares: high before normal before low."""
EMAIL, SMS = Lane("default", "email"), Lane("default", "sms")
FRONT = 4


@pytest.fixture
def lanes(redis_connection: redis.Redis) -> Lanes:
    return Lanes(redis_connection, "dramatiq", 10_000)


@pytest.fixture
def small(redis_connection: redis.Redis) -> Lanes:
    """With windows of ten hints."""
    return Lanes(redis_connection, "dramatiq", 10)


@pytest.fixture
def own_client(settings: Settings, redis_connection: redis.Redis) -> Iterator[redis.Redis]:
    client = redis_client.connect(settings, timeout_seconds=8)
    yield client
    client.close()


def hints(count: int, **over: Any) -> list[Hint]:
    return [make_hint(**over) for _ in range(count)]


def take(
    lanes: Lanes,
    wants: dict[Lane, int] | None = None,
    most: int = 100,
    first: Any = EVENLY,
    queues: Any = ("default",),
) -> Taken:
    return lanes.take({EMAIL: 100} if wants is None else wants, most, first, queues)


def look(lanes: Lanes, *queues: str) -> Taken:
    return take(lanes, {}, queues=queues or ("default",))


def by_type(found: Taken) -> Counter[str]:
    return Counter(hint.type for hint in found.hints)


# out and in


def test_what_is_pushed_is_taken_in_order_as_it_was(lanes: Lanes) -> None:
    sent = hints(9)
    assert lanes.push(sent) == 9
    assert take(lanes).hints == sent


def test_a_hint_is_spent_when_it_is_taken(lanes: Lanes, redis_connection: redis.Redis) -> None:
    lanes.push(hints(9))
    take(lanes)
    assert take(lanes) == Taken([], set(), [])
    assert redis_connection.keys("*") == []


def test_nothing_to_push_or_to_give_back_is_no_question(lanes: Lanes) -> None:
    assert lanes.push([]) == 0
    lanes.give_back([])


def test_what_lies_in_a_lane_is_dramatiqs_message(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    sent = hints(6, priority="high")
    lanes.push(sent)
    data: Any = redis_connection.lindex("dramatiq:default/email:high", 0)
    message = dramatiq.Message.decode(data)
    assert (message.actor_name, message.queue_name) == ("email", "default")
    assert (message.message_id, message.args) == (sent[FRONT].job_id, (sent[FRONT].job_id,))


def test_many_queues_are_pushed_in_one_round_trip(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    lanes.push(hints(1))  # loads the script
    before = redis_connection.info("stats")["total_commands_processed"]
    calls = redis_connection.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert lanes.push([*hints(2), *hints(3, queue="mail"), *hints(4, type="sms")]) == 9
    assert redis_connection.info("commandstats")["cmdstat_evalsha"]["calls"] == calls + 1
    assert redis_connection.info("stats")["total_commands_processed"] > before
    found = take(lanes, {EMAIL: 9, SMS: 9, Lane("mail", "email"): 9}, queues=("default", "mail"))
    assert by_type(found) == {"email": 6, "sms": 4}


def test_no_more_of_a_lane_is_taken_than_wanted(lanes: Lanes) -> None:
    lanes.push([*hints(50), *hints(50, type="sms")])
    assert by_type(take(lanes, {EMAIL: 3, SMS: 20})) == {"email": 3, "sms": 20}
    assert len(take(lanes, {EMAIL: 60, SMS: 60}, most=7).hints) == 7


def test_nothing_is_taken_of_a_lane_that_is_not_wanted(lanes: Lanes) -> None:
    sent = hints(9)
    lanes.push([*sent, *hints(9, type="sms")])
    found = take(lanes, {SMS: 100, EMAIL: 0})
    assert by_type(found) == {"sms": 9}
    assert found.waiting == {EMAIL}
    assert take(lanes).hints == sent


def test_of_many_who_take_each_hint_goes_to_one(settings: Settings, lanes: Lanes) -> None:
    sent = hints(1_000)
    lanes.push(sent)
    found: list[list[str]] = [[] for _ in range(4)]

    def run(number: int) -> None:
        own = Lanes(redis_client.connect(settings), "dramatiq", 10_000)
        while got := take(own, most=7).hints:
            found[number] += [hint.job_id for hint in got]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(i for got in found for i in got) == sorted(hint.job_id for hint in sent)


# priority


def only_lists(lanes: Lanes, sent: list[Hint]) -> None:
    """Pushes past the front."""
    lanes.give_back(sent)


def test_without_shares_high_goes_first_and_low_last(lanes: Lanes) -> None:
    sent = {p: hints(2, priority=p) for p in ("low", "normal", "high")}
    only_lists(lanes, [hint for group in sent.values() for hint in group])
    assert take(lanes).hints == [*sent["high"], *sent["normal"], *sent["low"]]


def test_shares_are_kept_so_that_no_priority_starves(lanes: Lanes) -> None:
    sent = {p: hints(50, priority=p) for p in ("low", "normal", "high")}
    only_lists(lanes, [hint for group in sent.values() for hint in group])
    found = take(lanes, most=10, first=(6, 3, 1)).hints
    assert found == [*sent["high"][:6], *sent["normal"][:3], *sent["low"][:1]]


def test_what_a_priority_does_not_have_others_may_have(lanes: Lanes) -> None:
    low, high = hints(9, priority="low"), hints(2, priority="high")
    only_lists(lanes, [*low, *high])
    assert take(lanes, most=10, first=(6, 3, 1)).hints == [*high, *low[:8]]


def test_low_priority_gets_through_while_high_keeps_coming(lanes: Lanes) -> None:
    low = hints(5, priority="low")
    lanes.push(low)
    seen: list[Hint] = []
    for _ in range(5):
        lanes.push(hints(10, priority="high"))
        seen += take(lanes, most=10, first=(6, 3, 1)).hints
    assert set(low) <= set(seen)


# turns


def test_lanes_share_evenly_what_is_taken_together(lanes: Lanes) -> None:
    lanes.push([*hints(5_000), *hints(100, type="sms")])
    assert 45 <= by_type(take(lanes, {EMAIL: 200, SMS: 200}, most=100))["sms"] <= 55


def test_what_one_lane_does_not_have_others_get(lanes: Lanes) -> None:
    lanes.push([*hints(5_000), *hints(10, type="sms")])
    assert by_type(take(lanes, {EMAIL: 200, SMS: 200}, most=100)) == {"email": 90, "sms": 10}


def test_of_lanes_that_do_not_all_find_room_each_gets_its_turn(lanes: Lanes) -> None:
    names = [f"type-{n}" for n in range(20)]
    lanes.push([hint for name in names for hint in hints(200, type=name)])
    wants = {Lane("default", name): 100 for name in names}
    seen: Counter[str] = Counter()
    for _ in range(200):
        seen += by_type(take(lanes, wants, most=2))
    assert set(seen) == set(names)


# fronts


def test_the_first_hints_of_an_empty_lane_lie_in_front(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    sent = hints(9)
    lanes.push(sent)
    assert redis_connection.llen("dramatiq:default:front") == FRONT
    assert redis_connection.llen("dramatiq:default/email") == 5
    lanes.push(hints(9, type="sms"))
    assert redis_connection.llen("dramatiq:default:front") == FRONT


def test_who_waits_gets_a_hint_at_once(lanes: Lanes, own_client: redis.Redis) -> None:
    got: list[Hint | None] = []
    waiter = threading.Thread(
        target=lambda: got.append(lanes.wait(own_client, ["mail", "default"], 5).hint)
    )
    waiter.start()
    sent = make_hint(priority="low")
    lanes.push([sent])
    waiter.join(5)
    assert got == [sent]


def test_who_waits_for_nothing_is_told_so(lanes: Lanes, own_client: redis.Redis) -> None:
    assert lanes.wait(own_client, ["default"], 0.05) == Woken(None)


def test_idle_workers_wake_one_after_the_other_while_there_is_more(
    lanes: Lanes, own_client: redis.Redis
) -> None:
    """A take shows the next ones in front, without which a flood would be one worker's."""
    sent = hints(30)
    lanes.push(sent)
    found = take(lanes, most=10)
    assert found.hints == sent[:10]
    assert found.waiting == {EMAIL}
    woken = [lanes.wait(own_client, ["default"], 0.05).hint for _ in range(FRONT + 1)]
    assert woken == [*sent[10 : 10 + FRONT], None]


def test_what_only_lies_in_front_is_said_to_wait(lanes: Lanes) -> None:
    sent = hints(12)
    lanes.push(sent)
    found = take(lanes, most=10)
    assert found.waiting == {EMAIL}
    assert take(lanes).hints == sent[10:]


def test_what_lies_in_front_and_is_not_wanted_goes_to_the_head_of_its_lane(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    sent = hints(6, priority="high")
    lanes.push(sent)
    sms = hints(2, type="sms")
    lanes.push(sms)
    found = take(lanes, {SMS: 9})
    assert found.hints == sms
    assert found.waiting == {EMAIL}
    assert redis_connection.llen("dramatiq:default:front") == 0
    assert take(lanes).hints == sent


def test_only_as_much_of_the_front_is_taken_as_finds_room(lanes: Lanes) -> None:
    sent = hints(3)
    lanes.push(sent)
    assert take(lanes, {EMAIL: 1}).hints == sent[:1]
    assert take(lanes, most=1).hints == sent[1:2]
    assert take(lanes).hints == sent[2:]


def test_fronts_of_other_queues_are_left_alone(lanes: Lanes) -> None:
    mail = hints(2, queue="mail")
    lanes.push(mail)
    assert take(lanes).hints == []
    assert take(lanes, {Lane("mail", "email"): 5}, queues=("mail",)).hints == mail


# a look


def test_a_look_tells_what_waits_and_moves_nothing(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    lanes.push([*hints(20), *hints(2, queue="mail", type="sms")])
    before = {key: redis_connection.lrange(key, 0, -1) for key in keys_of_lists(redis_connection)}
    found = look(lanes, "default", "mail")
    assert found == Taken([], {EMAIL, Lane("mail", "sms")}, [])
    assert before == {key: redis_connection.lrange(key, 0, -1) for key in before}


def keys_of_lists(connection: redis.Redis) -> list[bytes]:
    keys: Any = connection.keys("dramatiq:*")
    return [key for key in keys if connection.type(key) == b"list"]


def test_a_look_where_nothing_is_finds_nothing(lanes: Lanes) -> None:
    assert look(lanes) == Taken([], set(), [])
    assert lanes.take({}, 0, EVENLY, []) == Taken([], set(), [])


def test_where_there_are_many_lanes_each_look_tells_of_others(lanes: Lanes) -> None:
    names = [f"type-{n}" for n in range(1_000)]
    lanes.push([hint for name in names for hint in hints(2, type=name)])
    known = {Lane("default", name) for name in names[FRONT:]}
    told: set[Lane] = set()

    def all_are_told_of() -> bool:
        waiting = look(lanes, "mail").waiting
        assert 100 <= len(waiting) <= 500
        told.update(waiting)
        return told >= known

    eventually(all_are_told_of, 20)


def test_a_lane_that_is_known_for_nothing_is_forgotten(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    lanes.make_known([EMAIL, SMS])
    assert lanes.known() == {EMAIL, SMS}
    assert take(lanes, {EMAIL: 3}).waiting == {SMS}
    assert look(lanes).waiting == set()
    assert redis_connection.keys("*") == []


# windows, overflow, pours


def test_a_lane_holds_a_window_and_the_oldest_fit(small: Lanes) -> None:
    sent = hints(15)
    assert small.push(sent) == 10
    assert small.has_overflow(EMAIL)
    assert take(small).hints == sent[:10]


def test_a_lane_that_is_exactly_full_has_no_overflow(small: Lanes) -> None:
    assert small.push(hints(10)) == 10
    assert not small.has_overflow(EMAIL)


def test_while_more_waits_in_mongodb_nothing_overtakes_it(
    small: Lanes, redis_connection: redis.Redis
) -> None:
    small.push(hints(11))
    take(small)
    assert small.push(hints(5)) == 0
    assert redis_connection.llen("dramatiq:default:front") == 0
    small.clear_overflow(EMAIL)
    assert small.push(hints(5)) == 5


def test_a_pour_goes_past_the_overflow_as_far_as_the_window_goes(small: Lanes) -> None:
    small.set_overflow(EMAIL)
    assert small.push(hints(25), past_overflow=True) == 10
    assert small.has_overflow(EMAIL)
    assert len(take(small).hints) == 10


def test_an_overflow_is_its_lanes_own(small: Lanes) -> None:
    small.push(hints(15))
    assert small.push(hints(1, type="sms")) == 1
    assert small.push(hints(1, queue="mail")) == 1
    assert small.with_overflow([EMAIL, SMS, Lane("mail", "email")]) == {EMAIL}
    assert small.with_overflow([]) == set()


def test_a_lane_with_nothing_but_an_overflow_waits(small: Lanes) -> None:
    small.set_overflow(EMAIL)
    assert take(small, {SMS: 1}).waiting == {EMAIL}


def test_a_lane_with_an_overflow_is_to_be_poured_once_it_is_half_empty(small: Lanes) -> None:
    small.push(hints(20))
    assert take(small, {EMAIL: 4}).to_pour == []
    assert take(small, {EMAIL: 2}).to_pour == [EMAIL]


def test_one_pours_and_the_next_only_when_that_is_done(small: Lanes) -> None:
    small.set_overflow(EMAIL)
    assert take(small).to_pour == [EMAIL]
    assert take(small).to_pour == []
    small.pour_done(EMAIL, 1_234)
    assert small.since(EMAIL) == 1_234
    assert take(small).to_pour == [EMAIL]
    small.pour_done(EMAIL, None)
    assert small.since(EMAIL) is None


def test_a_lock_whose_holder_is_dead_ends_by_itself(
    small: Lanes, redis_connection: redis.Redis
) -> None:
    small.set_overflow(EMAIL)
    take(small)
    assert 0 < redis_connection.pttl("dramatiq:default/email:pouring") <= 5_000
    redis_connection.pexpire("dramatiq:default/email:pouring", 1)
    assert eventually(lambda: take(small).to_pour) == [EMAIL]


def test_a_look_asks_for_pours_too(small: Lanes) -> None:
    small.set_overflow(EMAIL)
    assert look(small).to_pour == [EMAIL]
    assert look(small).to_pour == []


def test_no_take_asks_for_more_pours_than_can_be_done_in_time(small: Lanes) -> None:
    wants = {Lane("default", f"type-{n}"): 5 for n in range(20)}
    for lane in wants:
        small.set_overflow(lane)
    assert len(take(small, wants).to_pour) == 4


def test_all_lanes_together_hold_a_bounded_number_of_hints(redis_connection: redis.Redis) -> None:
    lanes = Lanes(redis_connection, "dramatiq", 1_000)
    names = [f"type-{n}" for n in range(50)]
    for _ in range(3):
        for name in names:
            lanes.push(hints(500, type=name))
    listed = sum(int(redis_connection.llen(key)) for key in keys_of_lists(redis_connection))
    assert listed <= 25_000  # 75,000 were pushed
    assert all(len(lanes.listed(Lane("default", name))) >= 64 for name in names)


def test_a_message_in_a_lane_takes_little_memory(
    lanes: Lanes, redis_connection: redis.Redis
) -> None:
    before = redis_connection.info("memory")["used_memory"]
    for _ in range(60):
        lanes.push(hints(500))
    grown = redis_connection.info("memory")["used_memory"] - before
    assert len(lanes.listed(EMAIL)) == 10_000 + FRONT
    assert grown / 10_000 < 350  # bytes


# given back, listed


def test_what_is_given_back_stands_where_it_stood(lanes: Lanes, own_client: redis.Redis) -> None:
    sent = hints(20)
    lanes.push(sent)
    taken = take(lanes, most=16).hints
    take(lanes, {SMS: 1})  # what lies in front goes back to the lane
    lanes.give_back(taken[3:])
    assert take(lanes).hints == sent[3:]


def test_what_is_given_back_keeps_its_priority_and_wakes_nobody(
    lanes: Lanes, own_client: redis.Redis
) -> None:
    mine = [make_hint(priority=p) for p in ("high", "normal", "low")]
    lanes.give_back(mine)
    assert lanes.wait(own_client, ["default"], 0.05) == Woken(None)
    assert look(lanes).waiting == {EMAIL}
    assert take(lanes).hints == mine


def test_what_is_given_back_for_others_to_wake_lies_in_front(
    lanes: Lanes, own_client: redis.Redis
) -> None:
    mine = hints(6)
    lanes.give_back(mine, wake=True)
    assert lanes.wait(own_client, ["default"], 0.05).hint in mine
    assert set(take(lanes).hints) < set(mine)


def test_listed_are_the_jobs_that_have_a_hint_wherever_it_lies(lanes: Lanes) -> None:
    sent = [make_hint(priority=p) for p in ("high", "normal", "low") for _ in range(5)]
    lanes.push(sent)
    assert lanes.listed(EMAIL) == {hint.job_id for hint in sent}
    taken = take(lanes, most=5).hints
    assert lanes.listed(EMAIL) == {hint.job_id for hint in sent} - {h.job_id for h in taken}
    assert lanes.listed(Lane("mail", "email")) == set()


# junk


JUNK = {
    "no JSON": b"\xff\xfe",
    "empty": b"",
    "no object": b"[1, 2]",
    "only its beginning": b'{"message_id":"0193',
    "an id that is none": b'{"message_id":"' + b"x" * 36 + b'","actor_name":"email"}',
    "the id elsewhere": orjson.dumps({"actor_name": "email", "message_id": make_hint().job_id}),
    "deep": b'{"message_id":"' + b"[" * 10_000,
}


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("where", ["dramatiq:default/email", "dramatiq:default:front"])
def test_junk_is_put_aside_and_its_neighbours_are_unharmed(
    kind: str, where: str, lanes: Lanes, redis_connection: redis.Redis
) -> None:
    sent = hints(9)
    lanes.push(sent)
    redis_connection.lpush(where, JUNK[kind])
    found = take(lanes)
    assert (found.hints, found.junk) == (sent, 1)
    (key,) = redis_connection.zrange("dramatiq:default.XQ", 0, -1)  # type: ignore[misc]
    assert redis_connection.hget("dramatiq:default.XQ.msgs", key) == JUNK[kind]
    assert take(lanes) == Taken([], set(), [])


@pytest.mark.parametrize("actor", ["", "x:high", "a/b", "E", 7, None, {"a": 1}])
def test_a_message_of_no_possible_type_makes_no_lane(
    actor: Any, lanes: Lanes, redis_connection: redis.Redis
) -> None:
    forged = orjson.loads(lane_message(make_hint())) | {"actor_name": actor, "options": [1]}
    redis_connection.rpush("dramatiq:default:front", orjson.dumps(forged))
    assert take(lanes).junk == 1
    assert look(lanes).waiting == set()


@pytest.mark.parametrize("kind", JUNK)
def test_who_waits_is_woken_by_junk_and_puts_it_aside(
    kind: str, lanes: Lanes, own_client: redis.Redis, redis_connection: redis.Redis
) -> None:
    redis_connection.rpush("dramatiq:default:front", JUNK[kind])
    woken = lanes.wait(own_client, ["default"], 1)
    if kind != "the id elsewhere":  # that is a hint all the same
        assert woken == Woken(None, junk=1)
        assert redis_connection.zcard("dramatiq:default.XQ") == 1


# Redis forgets, or is away


def test_flushed_scripts_are_loaded_again(lanes: Lanes, redis_connection: redis.Redis) -> None:
    for hint in hints(3):
        redis_connection.script_flush()
        lanes.push([hint])
        redis_connection.script_flush()
        assert take(lanes).hints == [hint]
        redis_connection.script_flush()
        lanes.give_back([hint])
        assert take(lanes).hints == [hint]


def test_after_flushall_new_hints_arrive(small: Lanes, redis_connection: redis.Redis) -> None:
    small.push(hints(15))
    redis_connection.flushall()
    sent = hints(3)
    assert small.push(sent) == 3
    assert take(small).hints == sent


def test_a_redis_that_is_away_is_an_error_at_once(own_client: redis.Redis) -> None:
    nowhere = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    client = redis_client.connect(nowhere)
    lanes = Lanes(client, "dramatiq", 10)
    began = time.monotonic()
    for call in (
        lambda: lanes.push(hints(1)),
        lambda: take(lanes),
        lambda: lanes.give_back(hints(1)),
        lambda: lanes.wait(client, ["default"], 1),
        lambda: lanes.listed(EMAIL),
        lambda: lanes.has_overflow(EMAIL),
    ):
        with pytest.raises(redis.RedisError):
            call()
    assert time.monotonic() - began < 2
