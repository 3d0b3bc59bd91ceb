"""Signatures, as receivers check them."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.errors import SettingError
from service.outbound.signing import secrets, signed
from service.settings import Settings

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 64).decode()
CONTENT = b'{"a":"\xc3\xa4"}'


def test_the_known_answer_of_the_reference_libraries_comes_out() -> None:
    keys = secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_during_a_rotation_each_secret_verifies(secret: str) -> None:
    headers = signed(secrets(f"{NEW}, {OLD}"), "id-1", int(time.time()), CONTENT)
    assert Webhook(secret).verify(CONTENT, headers) == {"a": "ä"}
    assert len(headers["webhook-signature"].split(" ")) == 2


def test_another_secret_does_not_verify() -> None:
    headers = signed(secrets(f"{NEW},{OLD}"), "id-1", int(time.time()), CONTENT)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(CONTENT, headers)


def test_the_newest_secret_signs_first() -> None:
    both = signed(secrets(f"{NEW},{OLD}"), "id-1", 1, CONTENT)["webhook-signature"]
    assert both.split(" ")[0] == signed(secrets(NEW), "id-1", 1, CONTENT)["webhook-signature"]


def test_without_a_secret_nothing_is_signed_but_the_id_is_there() -> None:
    assert signed((), "id-1", 7, CONTENT) == {"webhook-id": "id-1", "webhook-timestamp": "7"}


def test_base64_without_its_padding_is_read() -> None:
    assert secrets(NEW.rstrip("=")) == (b"n" * 32,)


@pytest.mark.parametrize(
    "wrong",
    ["hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 200, "whsec_" + "é" * 40, OLD[6:]],
)
def test_a_wrong_secret_stops_the_start_and_is_not_shown(wrong: str) -> None:
    with pytest.raises(SettingError, match="WEBHOOK_SECRETS: secret number 2") as error:
        Settings.from_env({"WEBHOOK_SECRETS": f"{NEW},{wrong}"})
    assert wrong not in str(error.value).removesuffix("whsec_ and the base64 of 24 to 64 bytes")
