"""Prefetching: threads prepare items while the network computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    items: Iterable[Item], make: Callable[[Item], Result], *, threads: int = 2, depth: int = 4, cores: int = 1
) -> Iterator[Result]:
    """make(item) of each item, in order, computed in threads up to `depth` items ahead.

    cores: for torch in each of these threads. The network uses the others.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(cores,))
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # later threads inherit the last setting


def prefetch_reserving_cores(
    items: Iterable[Item], make: Callable[[Item], Result], *, loaders: int = 1, depth: int = 4
) -> Iterator[Result]:
    """Like `prefetch`, and the caller's torch uses `loaders` fewer cores meanwhile. With more threads than cores, a
    step takes twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - loaders))
    try:
        yield from prefetch(items, make, threads=loaders, depth=depth)
    finally:
        torch.set_num_threads(threads)
