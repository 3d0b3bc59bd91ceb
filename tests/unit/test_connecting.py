"""Addresses that no client takes: found at start, by the setting's name."""

from __future__ import annotations

import pytest

from service.errors import SettingError
from service.queue import redis_client
from service.settings import Settings
from service.store import mongo


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://",
        "mongodb://h:port/x",
        "mongodb://me:hun@ter2@h/x",
        "mongodb://h/x?replicaSet",
        "mongodb://h/two words",
        "mongodb://h/a.b",
    ],
)
def test_a_mongodb_uri_that_is_none_names_its_setting_and_no_password(uri: str) -> None:
    with pytest.raises(SettingError, match="MONGODB_URI") as refused:
        mongo.connect(Settings(mongodb_uri=uri))
    assert "ter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://h:port/0", "redis://h:6379/0?socket_timeout=soon"])
def test_a_redis_url_that_is_none_names_its_setting(url: str) -> None:
    with pytest.raises(SettingError, match="REDIS_URL"):
        redis_client.connect(Settings(redis_url=url))


def test_a_server_that_is_away_is_no_wrong_setting() -> None:
    database = mongo.connect(Settings(mongodb_uri="mongodb://127.0.0.1:1/x"))
    assert database.name == "x"
    database.client.close()
    redis_client.connect(Settings(redis_url="redis://127.0.0.1:1/0")).close()
