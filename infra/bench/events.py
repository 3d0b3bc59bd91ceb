"""The project's event types, in the benchmark's own process."""

from __future__ import annotations

from service.catalog import Catalog, catalog


def loaded_catalog() -> Catalog:
    """Those that ship. Importing `actors` reads the settings and connects to nothing."""
    import actors  # noqa: F401

    return catalog
