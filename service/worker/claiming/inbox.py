"""Reads messages as they lie in Redis, where anybody may have put anything."""

from __future__ import annotations

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import DecodeError

from service.catalog import Catalog
from service.queue.broker import PulseBroker


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
