"""What is made in threads while the network computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(
    items: Iterable[Given], make: Callable[[Given], Made], *, threads: int = 2, depth: int = 4, cores: int = 1
) -> Iterator[Made]:
    """make(item) of each item, in order, made in threads up to `depth` items before they are asked for.

    cores: on which torch computes in each of these threads: the others belong to the network.
    """
    waiting: deque[Future[Made]] = deque()
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
        torch.set_num_threads(torch.get_num_threads())  # threads to come inherit what was set last


def beside_network(
    items: Iterable[Given], make: Callable[[Given], Made], *, loaders: int = 1, depth: int = 4
) -> Iterator[Made]:
    """Like `ahead`, and while it lasts the caller's torch leaves the loaders their cores: more threads than cores would
    double the time of a step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - loaders))
    try:
        yield from ahead(items, make, threads=loaders, depth=depth)
    finally:
        torch.set_num_threads(threads)
