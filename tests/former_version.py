"""What processes of a former version put into Redis."""

from __future__ import annotations

import secrets
from typing import Any

from service.job import Hint
from service.queue.messages import hint_message


def message_id_of(job_id: str) -> str:
    """The id in Redis of a hint at this job."""
    return f"{job_id}.{secrets.token_hex(8)}"


def former_hint(hint: Hint) -> tuple[str, bytes]:
    """The message's id in Redis, and its JSON."""
    message_id = message_id_of(hint.job_id)
    message: Any = hint_message(hint).copy(options={"redis_message_id": message_id})
    return message_id, message.encode()
