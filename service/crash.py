"""Named crash points: where a test wants the process to die. Environment only, off by default.

`CRASH_POINT=name` kills the process by SIGKILL when it comes to that point, `CRASH_POINT=name:3`
the third time.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _COUNT = os.environ.get("CRASH_POINT", "").partition(":")
_left = int(_COUNT or 1)


def crash_point(name: str) -> None:
    """Dies here, if the environment says so."""
    global _left  # noqa: PLW0603
    if name == _NAME:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
