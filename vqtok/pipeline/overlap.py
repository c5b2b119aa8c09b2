"""A bounded number of things happening in threads while the main thread does something else."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    weight: Callable[[Item], int] = lambda item: 0,
    limit: int = 0,
    stop: threading.Event | None = None,
) -> Generator[Result, None, None]:
    """``map(function, items)`` in ``workers`` threads, in order, at most twice as many ahead.

    The items ahead weigh at most ``limit`` together, except that one of any weight may be.

    Items are taken by the calling thread, and no more of them than results are asked for (plus
    those ahead), so memory does not grow with their number. An exception of ``function`` is raised
    where its result would be. When the iterator ends, however it does, ``stop`` is set and the
    calls that have begun are waited for.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="vqtok") as pool:
        ahead: deque[Future[Result]] = deque()
        weights: deque[int] = deque()
        try:
            for item in items:
                weights.append(weight(item))
                while ahead and sum(weights) > limit:
                    weights.popleft()
                    yield ahead.popleft().result()
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * workers:
                    weights.popleft()
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            if stop is not None:
                stop.set()
            for future in ahead:
                future.cancel()
