"""Loaded into a worker through EVENT_TYPE_MODULES: it looks as if it ran on a host of its own, so
that no other worker can see whether its process is gone; only the end of its lease tells."""

from __future__ import annotations

import secrets

from service.runtime import identity

_HERE = secrets.token_hex(8)
identity.process_space = lambda: _HERE
