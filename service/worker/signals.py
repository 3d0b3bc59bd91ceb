"""Signals that ask a worker process to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any


def stop_at_once(ask: Callable[[], bool]) -> None:
    """Calls `ask()` when a signal comes, and what handled that signal before where it is the first.

    Dramatiq looks at its signals once a second; jobs should be given back before that.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        former = signal.getsignal(number)

        def handle(signum: int, frame: Any, former: Any = former) -> None:
            # A signal to the process group comes twice: from its sender, and from Dramatiq's
            # master, which passes it on. Dramatiq would take the second one for impatience.
            if ask() and callable(former):
                former(signum, frame)

        signal.signal(number, handle)
