"""Writes as the server's own commands.

PyMongo's helpers for the same (`insert_many`, `update_many`, `find_one_and_update`, `bulk_write`)
cost as much again as all else that accepting or claiming a job takes. What they add is not needed
here: every write is guarded, so that whoever calls may repeat it, and knows when.

What is changed is found by its `_id`, and that is said: left to itself, MongoDB now and then takes
an index on the status, whose keys from the last minutes cost ten times as much to pass over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo.database import Database
from pymongo.errors import BulkWriteError, WriteConcernError

from service.store.mongo import Document

_MAJORITY = {"w": "majority", "j": True}
_BY_ID = "_id_"


def insert(
    database: Database[Document], name: str, documents: Sequence[Document]
) -> list[Document]:
    """Inserts what it can, by majority and journal; the server's `writeErrors` for the rest.

    Raises `PyMongoError`.
    """
    reply = _write(database, "insert", name, documents=documents, ordered=False)
    failures: list[Document] = reply.get("writeErrors", [])
    return failures


def update(database: Database[Document], name: str, updates: Sequence[Document]) -> int:
    """Applies statements (`q`, `u`, `multi`) by majority and journal; how many documents matched.

    Raises `PyMongoError`, `BulkWriteError` where a statement was refused.
    """
    by_id = [{**one, "hint": _BY_ID} for one in updates]
    reply = _write(database, "update", name, updates=by_id, ordered=False)
    if "writeErrors" in reply:
        raise BulkWriteError(reply)
    matched: int = reply["n"]
    return matched


def find_and_modify(
    database: Database[Document], name: str, query: Document, change: Document, fields: Document
) -> bytes | None:
    """Changes one document by majority and journal; the BSON of its `fields` as they are now, None:
    no match.

    Raises `PyMongoError`.
    """
    reply = _write(
        database,
        "findAndModify",
        name,
        query=query,
        update=change,
        fields=fields,
        new=True,
        hint=_BY_ID,
        codec_options=DEFAULT_RAW_BSON_OPTIONS,
    )
    found = reply["value"]
    return None if found is None else bytes(found.raw)  # a large one is a view


def _write(database: Database[Document], command: str, name: str, **fields: Any) -> Any:
    reply = database.command(command, name, writeConcern=_MAJORITY, **fields)
    if (unsure := reply.get("writeConcernError")) is not None:
        raise WriteConcernError(unsure.get("errmsg", ""), unsure.get("code"), unsure)
    return reply
