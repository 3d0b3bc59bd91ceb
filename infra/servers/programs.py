"""Where a server's program is: on PATH, or in a package from PyPI."""

from __future__ import annotations

import ctypes
import shutil
from importlib.util import find_spec
from pathlib import Path


def on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found) if found else None


def in_package(package: str, *inside: str) -> Path | None:
    places = (folder.joinpath(*inside) for folder in folders_of(package))
    return next((program for program in places if program.exists()), None)


def folders_of(package: str) -> list[Path]:
    """Where an installed package lies; it is not imported."""
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ()]


def can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
