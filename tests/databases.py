"""Databases that many tests share: making the indexes takes longer than most of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from service.store import ensure_indexes

Document = dict[str, Any]


@contextmanager
def indexed(client: MongoClient[Document], name: str) -> Iterator[Database[Document]]:
    """A database with its indexes, dropped in the end."""
    database = client[name]
    ensure_indexes(database)
    yield database
    client.drop_database(name)


def emptied(database: Database[Document]) -> Database[Document]:
    """The same with no document in it, and all of its indexes."""
    for name in database.list_collection_names():
        database[name].delete_many({})
    return database
