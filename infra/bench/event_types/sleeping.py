"""`bench.sleep`: holds a thread for `ms` milliseconds. Alone in its module: a type that is the only
one for threads may have them all."""

from __future__ import annotations

import time
from typing import Any

from marshmallow import Schema, fields

from service.catalog import Context, event_type


class SleepPayload(Schema):
    """How long."""

    ms = fields.Integer(required=True, strict=True)


@event_type("bench.sleep", schema=SleepPayload)
def sleep(payload: dict[str, Any], _context: Context) -> None:
    time.sleep(payload["ms"] / 1000)
