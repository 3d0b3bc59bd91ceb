"""Work for the CPU that must not hold up the event loop: large bodies, large answers.

All of it happens on one thread, in turns. More threads would get no more done under Python's global
lock, and the event loop would have to wait for each of them. The thread gives way to the loop
between two instructions of Python, but never inside a call of C. So no single call may work on more
than one event.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from service.errors import BacklogFull
from service.runtime import garbage

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""Work that pauses wherever another one's may go first, and returns its result."""

_TURN_SECONDS = 0.02
_LARGEST_EVENT_BYTES = 1_048_576
_MOST_BYTES = 33_554_432
"""Of bodies that are parsed and not yet stored. Each takes up to six times its size meanwhile."""
_LONGEST_WAIT_SECONDS = 30.0


class Room:
    """So many bytes may be inside at once; the others wait in line. One alone always fits."""

    def __init__(self, most_bytes: int, longest_wait_seconds: float) -> None:
        self._most_bytes, self._longest_wait_seconds = most_bytes, longest_wait_seconds
        self._taken = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def of(self, size: int) -> AsyncIterator[None]:
        """Raises `BacklogFull` where there is none in time."""
        if self._line or not self._fits(size):
            await self._wait(size)
        else:
            self._taken += size
        try:
            yield
        finally:
            self._leave(size)

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= self._most_bytes

    async def _wait(self, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            async with asyncio.timeout(self._longest_wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(size)  # it was let in, in the same moment
            if isinstance(error, TimeoutError):
                raise BacklogFull("too many large bodies at once", 1) from None
            raise

    def _leave(self, size: int) -> None:
        self._taken -= size
        while self._line and (self._line[0][1].cancelled() or self._fits(self._line[0][0])):
            waiting, turn = self._line.popleft()
            if not turn.cancelled():
                self._taken += waiting
                turn.set_result(None)


class CpuLane:
    """Small work is done at once, on the event loop. Large work is done on the one thread, where it
    holds up no small work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cpu lane")
        self._events = Room(_MOST_BYTES, _LONGEST_WAIT_SECONDS)
        self._batches = Room(_MOST_BYTES, _LONGEST_WAIT_SECONDS)

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """For a body of so many bytes, from its parsing to its answer. Batches that are larger than
        any event wait in a line of their own. Raises `BacklogFull`."""
        return (self._events if size <= _LARGEST_EVENT_BYTES else self._batches).of(size)

    async def run(self, act: Callable[[], Result], *, is_large: bool) -> Result:
        """What `act` returns. The collector of garbage waits meanwhile: it would look again and
        again at a large value that is still being made."""
        if not is_large:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._pool, _undisturbed, act)

    async def run_steps(self, steps: Steps[Result], *, is_large: bool) -> Result:
        """What they return. Large ones let others go first every few milliseconds."""
        while True:
            ended = await self.run(lambda: _turn(steps, forever=not is_large), is_large=is_large)
            if ended is not None:
                return ended[0]

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _undisturbed(act: Callable[[], Result]) -> Result:
    with garbage.paused():
        return act()


def _turn(steps: Steps[Result], *, forever: bool) -> tuple[Result] | None:
    """Some of the steps; their result where these were the last ones."""
    end = time.monotonic() + _TURN_SECONDS
    try:
        next(steps)
        while forever or time.monotonic() < end:
            next(steps)
    except StopIteration as ended:
        return (ended.value,)
    return None
