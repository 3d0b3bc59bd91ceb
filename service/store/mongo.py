"""Makes MongoDB clients: every operation with a deadline, every write by majority and journal."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any

import pymongo
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.dbref import DBRef
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ConfigurationError, InvalidName, NotPrimaryError

from service.clock import ServerClock
from service.errors import SettingError
from service.settings import Settings

Document = dict[str, Any]
_SELECTION_MS = 2_000


class _PlainReference(TypeDecoder):
    """Reads `{"$ref": ..., "$id": ...}` back as what it was when a client posted it: an object like
    any other. The driver would make a `DBRef` of it, which is no JSON."""

    bson_type = DBRef

    def transform_bson(self, value: Any) -> Document:
        return dict(value.as_doc())


def connect(settings: Settings, *, pool_size: int = 20) -> Database[Document]:
    """The database that the settings name; connects in the background, so it never fails for a
    server that is away. Raises `SettingError` for a URI that can't be one.

    Call it after the fork: a client's sockets and threads must not be shared between processes.
    """
    client: MongoClient[Document] | None = None
    try:
        client = _client(settings, pool_size)
        return client[settings.database]
    except (ConfigurationError, InvalidName, ValueError) as error:
        if client is not None:
            client.close()
        raise SettingError(f"MONGODB_URI: not what MongoDB's driver takes: {error}") from None


def _client(settings: Settings, pool_size: int) -> MongoClient[Document]:
    return MongoClient(
        settings.mongodb_uri,
        appname="pulsequeue",
        tz_aware=True,
        w="majority",
        journal=True,
        retryWrites=True,
        maxPoolSize=pool_size,
        timeoutMS=settings.mongodb_timeout_ms,
        serverSelectionTimeoutMS=min(_SELECTION_MS, settings.mongodb_timeout_ms),
        connectTimeoutMS=min(_SELECTION_MS, settings.mongodb_timeout_ms),
        heartbeatFrequencyMS=2_000,
        type_registry=TypeRegistry([_PlainReference()]),
    )


def deadline(seconds: float) -> AbstractContextManager[None]:
    """All that this thread asks inside is done in so many seconds, or raises; the server is told
    and gives up too. Of two deadlines the earlier one holds."""
    return pymongo.timeout(seconds)


def read_clock(database: Database[Document], clock: ServerClock) -> None:
    """Takes a reading of the server's clock. Raises `PyMongoError` where there is no answer."""
    sent = time.monotonic()
    answer = database.command("hello")
    clock.learn(answer["localTime"], sent, time.monotonic())


def check_writable(database: Database[Document], timeout_seconds: float) -> None:
    """Raises `PyMongoError` where no server takes writes, or none says so in time."""
    with deadline(timeout_seconds):
        if not database.command("hello").get("isWritablePrimary"):
            raise NotPrimaryError("no server takes writes")
