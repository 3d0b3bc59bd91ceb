"""Reads messages as they lie in Redis, where anybody may have put anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.errors import DecodeError

from service.catalog import Catalog
from service.queue.broker import PulseBroker
from service.worker.claiming.shares import SHARES


class Junk(Exception):
    """A message that no actor here can take; says why."""


def read_message(
    key: bytes, data: bytes | None, queue: str, broker: PulseBroker, catalog: Catalog
) -> MessageProxy:
    """The message that lay under that key of the queue. Raises `Junk`."""
    if data is None:
        raise Junk("has no content")
    try:
        message = dramatiq.Message.decode(data)
        message.options["redis_message_id"] = key.decode()
        message.options.pop("eta", None)  # nothing is delayed in here
        known = message.actor_name in broker.actors
    except (DecodeError, AttributeError, TypeError, ValueError) as error:
        raise Junk(f"can't be read: {error!r}") from error
    is_job = catalog.get(message.actor_name) is not None
    is_hint = not is_job or (len(message.args) == 1 and isinstance(message.args[0], str))
    if not known or not is_hint or message.queue_name != queue:
        raise Junk(f"is for no actor here: {message.actor_name!r}")
    return MessageProxy(_as_hint(message, key) if is_job else message)


def _as_hint(message: dramatiq.Message[Any], key: bytes) -> dramatiq.Message[Any]:
    """Without what else it says (time limits, callbacks): that is not its business."""
    priority = message.options.get("priority")
    priority = priority if priority in SHARES else "normal"
    options = {"redis_message_id": key.decode(), "priority": priority}
    return dataclasses.replace(message, kwargs={}, options=options)
