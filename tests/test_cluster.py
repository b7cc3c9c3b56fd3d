"""Tasks over processes: every one comes back, a death is told, and nobody is left behind."""

import functools
import operator
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from affect.pipeline.cluster import crew_size, run_tasks, worker_count, worker_number
from affect.pipeline.errors import AffectError


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_item_comes_back_with_its_result(workers: int) -> None:
    results: list[tuple[int, int]] = []
    run_tasks(operator.neg, range(20), workers=workers, on_result=lambda item, result: results.append((item, result)))
    assert sorted(results) == [(item, -item) for item in range(20)]


def test_workers_know_which_they_are() -> None:
    assert worker_number() == 0
    numbers: list[int] = []
    asked = "__import__('time').sleep(0.3) or __import__('affect.pipeline.cluster', fromlist=['_']).worker_number()"
    run_tasks(eval, [asked] * 4, workers=2, on_result=lambda _, number: numbers.append(number))
    assert sorted(set(numbers)) == [0, 1]


def test_with_one_hand_the_order_is_kept() -> None:
    for workers in (0, 1):
        order: list[int] = []
        run_tasks(operator.neg, [3, 1, 2], workers=workers, on_result=lambda item, _, order=order: order.append(item))
        assert order == [3, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_result_may_ask_for_more(workers: int) -> None:
    results: list[int] = []

    def on_result(item: int, result: int) -> list[int]:
        results.append(result)
        return [10 * item] if item < 100 else []

    run_tasks(operator.neg, [1, 2], workers=workers, on_result=on_result)
    assert sorted(results) == [-200, -100, -20, -10, -2, -1]


def test_nothing_to_do_starts_nothing() -> None:
    run_tasks(operator.neg, [], workers=2, on_result=print, setup=functools.partial(os._exit, 1))


def test_workers_are_other_processes_and_are_set_up_once(tmp_path: Path) -> None:
    ready = functools.partial(exec, f"import os; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'x').close()")
    seen: set[int] = set()
    code = "__import__('time').sleep(0.1) or __import__('os').getpid()"
    run_tasks(eval, [code] * 8, workers=2, setup=ready, on_result=lambda _, pid: seen.add(pid))
    assert len(seen) == 2
    assert os.getpid() not in seen
    assert {int(path.name) for path in tmp_path.iterdir()} == seen


def test_our_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    threads: list[int] = []
    code = "__import__('torch').get_num_threads()"
    run_tasks(eval, [code], workers=1, threads=2, on_result=lambda _, n: threads.append(n))
    assert dict(os.environ) == before
    assert threads == [2]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_task_raises_is_raised_here(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        run_tasks(eval, ["1/0", "2"], workers=workers, on_result=lambda *_: None)


def test_a_task_that_kills_its_workers_costs_only_itself() -> None:
    items = ["1", "__import__('os')._exit(3)", "2", "3", "4"]
    results: list[int] = []
    died: list[tuple[str, str]] = []
    run_tasks(
        eval, items, workers=2,
        on_result=lambda _, result: results.append(result),
        on_error=lambda item, reason: died.append((item, reason)),
    )  # fmt: skip
    assert sorted(results) == [1, 2, 3, 4]
    assert died == [(items[1], "its worker process died, 3 times")]


def test_a_death_without_a_listener_is_an_error() -> None:
    with pytest.raises(AffectError, match=r"_exit.*its worker process died, 3 times.*runtime\.workers"):
        run_tasks(eval, ["__import__('os')._exit(3)"], workers=1, on_result=lambda *_: None)


def test_a_cluster_that_fails_to_close_does_not_hide_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    close = LocalCluster.close

    def fails(self: LocalCluster, *args: Any, **options: Any) -> None:
        close(self, *args, **options)
        raise AssertionError("can only join a started process")

    monkeypatch.setattr(LocalCluster, "close", fails)
    with pytest.raises(ZeroDivisionError):
        run_tasks(eval, ["1 / 0"], workers=1, on_result=lambda *_: None)


def test_a_scheduler_may_be_given() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster:
        assert isinstance(cluster, LocalCluster)
        assert crew_size(0, cluster.scheduler_address) == 1
        for _ in range(2):
            results: list[int] = []
            run_tasks(
                operator.neg,
                [5],
                workers=0,
                scheduler=cluster.scheduler_address,
                on_result=lambda *pair, results=results: results.extend(pair),
            )
            assert results == [5, -5]


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with pytest.raises(AffectError, match=r"no Dask scheduler answers at nonsense://x"):
        run_tasks(operator.neg, [5], workers=0, scheduler="nonsense://x", on_result=lambda *_: None)


def test_worker_count() -> None:
    assert worker_count(0) == 0
    assert worker_count(7) == 7
    assert worker_count(-1) >= 1
    assert worker_count(-1, cores=1) >= worker_count(-1)
    assert worker_count(-1, cores=10**6) == 1


LONG = """
import os
from affect.pipeline.cluster import run_tasks
if __name__ == "__main__":
    code = "__import__('os').getpid()", "__import__('time').sleep(60)", "__import__('time').sleep(60)"
    run_tasks(eval, code, workers=1, on_result=lambda _, pid: print(pid, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_master(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "long.py"
    script.write_text(LONG)
    master = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert master.stdout is not None
    with master:
        worker = os.pidfd_open(int(master.stdout.readline()))
        # As from a terminal, Ctrl-C goes to the whole group; a kill only to the one.
        os.killpg(master.pid, how) if how is signal.SIGINT else master.kill()
        assert select.select([worker], [], [], 10)[0], "the worker outlived its master"
        os.close(worker)
        said = master.communicate(timeout=10)[1].decode()
    if how is signal.SIGINT:
        assert said.count("Traceback") == 1
        assert said.rstrip().endswith("KeyboardInterrupt")
