"""One running system for most tests of this folder; each test leaves it healed and idle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.stack import QUICK, Stack


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what needs a running system; leaves the long tests out unless they are asked for."""
    for item in items:
        if "faults" in item.path.parts and "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.faults)
    if "soak" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="package")  # not longer: it costs others time
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), webs=1, workers=2, env=QUICK) as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The system, ready; afterwards it is healed, and what is still open must come to an end."""
    running_stack.undo_faults()
    running_stack.wait_ready()
    yield running_stack
    running_stack.undo_faults()
    running_stack.wait_ready()
    running_stack.forget()
