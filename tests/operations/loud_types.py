"""Event types for tests, loaded through EVENT_TYPE_MODULES: what they say is the payload's."""

from __future__ import annotations

import time
from typing import Any

from service.catalog import Context, event_type


@event_type("loud.fail", max_attempts=1)
def fail(payload: dict[str, Any], _context: Context) -> None:
    raise RuntimeError(payload["text"])


@event_type("loud.print", max_attempts=1)
def speak(payload: dict[str, Any], _context: Context) -> None:
    print(payload["text"], flush=True)


@event_type("loud.wait")
def wait(payload: dict[str, Any], _context: Context) -> None:
    time.sleep(payload["seconds"])
