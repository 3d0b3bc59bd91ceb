"""Reads messages as they lie in Redis, where anybody may have put anything."""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import DecodeError

from service.catalog import Catalog
from service.errors import StoreUnavailable
from service.ids import is_id
from service.job import Hint, Priority
from service.metrics.counts import WORKER_COUNTS
from service.queue.broker import PulseBroker
from service.store import Counters, Deltas

_log = logging.getLogger(__name__)
_PRIORITIES = frozenset(p.value for p in Priority)


class Junk(Exception):
    """A message that no actor here can take; says why."""


def read_message(
    message_id: bytes, data: bytes | None, queue: str, broker: PulseBroker, catalog: Catalog
) -> MessageProxy:
    """The message of that queue, for an actor that is no event type. Raises `Junk`."""
    if data is None:
        raise Junk("has no content")
    try:
        message = dramatiq.Message.decode(data)
        message.options["redis_message_id"] = message_id.decode()
        message.options.pop("eta", None)  # nothing is delayed in here
        is_known = message.actor_name in broker.actors
    except (DecodeError, AttributeError, TypeError, ValueError) as error:
        raise Junk(f"can't be read: {error!r}") from error
    is_event_type = catalog.get(message.actor_name) is not None
    if not is_known or is_event_type or message.queue_name != queue:
        raise Junk(f"is for no actor here: {message.actor_name!r}")
    return MessageProxy(message)


def hint_of_message(data: bytes | None, catalog: Catalog) -> Hint | None:
    """The hint that a message is, at home in its type's queue; None where it is none. All else that
    it says (time limits, callbacks) is not its business."""
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(data or b"")
        event_type = catalog.get(message.actor_name)
        (job_id,) = message.args
        priority = message.options.get("priority")
        if event_type is None or not is_id(job_id):
            return None
    except (DecodeError, AttributeError, TypeError, ValueError):
        return None
    if not isinstance(priority, str) or priority not in _PRIORITIES:
        priority = Priority.NORMAL
    return Hint(job_id, event_type.name, event_type.queue, priority)


def count_junk(counters: Counters, count: int) -> None:
    """Counts messages that were put aside, where that is possible."""
    deltas = Deltas()
    deltas.add(WORKER_COUNTS, "junk", count)
    try:
        counters.add(deltas)
    except StoreUnavailable as error:
        _log.warning("junk is not counted: %s", error)
