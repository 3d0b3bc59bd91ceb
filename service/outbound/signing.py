"""Signatures as the Standard Webhooks specification has them (symmetric, version 1).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from service.errors import SettingError

_PREFIX = "whsec_"
_MIN_BYTES, _MAX_BYTES = 24, 64


def secrets(text: str) -> tuple[bytes, ...]:
    """Reads `WEBHOOK_SECRETS`: `whsec_<base64>` of 24 to 64 bytes each, comma-separated, newest
    first. Raises `SettingError`, which never shows a secret."""
    entries = [entry.strip() for entry in text.split(",")]
    return tuple(_secret(n, entry) for n, entry in enumerate(filter(None, entries), start=1))


def _secret(number: int, text: str) -> bytes:
    encoded = text.removeprefix(_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_PREFIX) or not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        rule = f"{_PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes"
        raise SettingError(f"WEBHOOK_SECRETS: secret number {number} is not {rule}")
    return key


def signed(
    keys: Sequence[bytes], message_id: str, timestamp: int, content: bytes
) -> dict[str, str]:
    """The headers of a message: its id (the same for all attempts, so that a receiver can drop
    duplicates), the seconds since 1970 of this attempt, and one signature a key, none without.

    All keys of a rotation sign, so that receivers may change theirs at any time during it.
    """
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if keys:
        payload = f"{message_id}.{timestamp}.".encode() + content
        headers["webhook-signature"] = " ".join(_signature(key, payload) for key in keys)
    return headers


def _signature(key: bytes, payload: bytes) -> str:
    digest = hmac.new(key, payload, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
