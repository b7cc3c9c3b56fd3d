"""What is made in threads comes in order, not too far ahead, and takes no cores from the network."""

import threading

import pytest
import torch
from affect.pipeline.errors import ShardError
from affect.pipeline.learning.prefetch import prefetch, prefetch_reserving_cores


def test_it_keeps_the_order_and_runs_only_so_far_ahead() -> None:
    made: list[int] = []
    all_asked_for = threading.Event()

    def make(item: int) -> int:
        made.append(item)
        if len(made) == 4:
            all_asked_for.set()
        return item * item

    squares = prefetch(range(100), make, threads=4, depth=3)
    assert next(squares) == 0
    all_asked_for.wait()
    assert sorted(made) == [0, 1, 2, 3], "the one that was asked for, and three ahead"
    assert list(squares) == [item * item for item in range(1, 100)]


def test_it_passes_errors_on_and_stops_when_it_is_left() -> None:
    def make(item: int) -> int:
        if item == 3:
            raise ShardError("bad")
        return item

    with pytest.raises(ShardError):
        list(prefetch(range(10), make))
    workers: set[threading.Thread] = set()
    half = prefetch(range(10_000), lambda item: workers.add(threading.current_thread()))
    next(half)
    half.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert workers
    assert not any(worker.is_alive() for worker in workers)


def test_loader_threads_get_cores_and_return_them() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        made = prefetch_reserving_cores(range(4), lambda item: (item, torch.get_num_threads()), loaders=1)
        assert next(made) == (0, 1)
        assert torch.get_num_threads() == 2
        assert [item for item, _ in made] == [1, 2, 3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
