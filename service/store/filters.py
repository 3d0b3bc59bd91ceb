"""Which jobs: what clients filter listings and changes of many by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from service.ids import first_id_at
from service.store.mongo import Document


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs. Times bound `created_at`: after is inclusive, before is exclusive."""

    status: str | None = None
    type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def query(self, *, below: str | None = None) -> Document:
        """As a query; `below`: only ids before that one. An id begins with its time of creation,
        so that a range of times is a range of ids."""
        query: Document = {}
        if self.status is not None:
            query["status"] = self.status
        if self.type is not None:
            query["type"] = self.type
        query.update(self.labels)
        ids: dict[str, Any] = {}
        if self.created_after is not None:
            ids["$gte"] = first_id_at(self.created_after)
        uppers = [below] if below else []
        if self.created_before is not None:
            uppers.append(first_id_at(self.created_before))
        if uppers:
            ids["$lt"] = min(uppers)
        if ids:
            query["_id"] = ids
        return query
