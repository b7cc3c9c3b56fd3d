"""Tasks in worker processes: every result comes back, a dead worker is reported, and no process is left behind."""

import operator
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from affect.pipeline import cluster
from affect.pipeline.cluster import run_tasks, worker_count, worker_number, worker_slots
from affect.pipeline.errors import AffectError
from affect.tests.cluster_tasks import (
    exit_if_negative,
    number_of_one_of_two,
    pid_of_one_of_two,
    reciprocal,
    torch_threads,
)
from affect.tests.waiting import wait_for_exit


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_item_is_returned_with_its_result(workers: int) -> None:
    results: list[tuple[int, int]] = []
    run_tasks(operator.neg, range(20), workers=workers, on_result=lambda item, result: results.append((item, result)))
    assert sorted(results) == [(item, -item) for item in range(20)]


def test_workers_are_numbered_from_0(tmp_path: Path) -> None:
    assert worker_number() == 0
    numbers: list[int] = []
    run_tasks(number_of_one_of_two, [tmp_path] * 2, workers=2, on_result=lambda _, number: numbers.append(number))
    assert sorted(numbers) == [0, 1]


def test_one_worker_keeps_the_order() -> None:
    for workers in (0, 1):
        order: list[int] = []
        run_tasks(operator.neg, [3, 1, 2], workers=workers, on_result=lambda item, _, order=order: order.append(item))
        assert order == [3, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_result_may_add_items(workers: int) -> None:
    results: list[int] = []

    def on_result(item: int, result: int) -> list[int]:
        results.append(result)
        return [10 * item] if item < 100 else []

    run_tasks(operator.neg, [1, 2], workers=workers, on_result=on_result)
    assert sorted(results) == [-200, -100, -20, -10, -2, -1]


def test_more_items_than_the_scheduler_may_know_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MAX_SUBMITTED", 3)
    results: list[int] = []

    def on_result(item: int, result: int) -> list[int]:
        results.append(result)
        return [100 + item] if item < 5 else []

    run_tasks(operator.neg, range(20), workers=2, on_result=on_result)
    assert sorted(results) == sorted(-item for item in (*range(20), *range(100, 105)))


def test_no_items_start_no_worker() -> None:
    called: list[Any] = []
    run_tasks(operator.neg, [], workers=2, scheduler="tcp://127.0.0.1:1", on_result=lambda *it: called.append(it))
    assert not called


def test_workers_are_other_processes(tmp_path: Path) -> None:
    seen: set[int] = set()
    run_tasks(pid_of_one_of_two, [tmp_path] * 8, workers=2, on_result=lambda _, pid: seen.add(pid))
    assert len(seen) == 2
    assert os.getpid() not in seen


def test_the_environment_of_the_caller_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = dict(os.environ)
    threads: list[int] = []
    run_tasks(torch_threads, [None], workers=1, threads=2, on_result=lambda _, n: threads.append(n))
    assert dict(os.environ) == before
    assert threads == [2]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_of_a_task_is_raised_by_run_tasks(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        run_tasks(reciprocal, [0, 2], workers=workers, on_result=lambda *_: None)


def test_a_task_that_kills_its_workers_does_not_stop_the_others() -> None:
    results: list[int] = []
    died: list[tuple[int, str]] = []
    run_tasks(
        exit_if_negative, [1, -1, 2, 3, 4], workers=2,
        on_result=lambda _, result: results.append(result),
        on_error=lambda item, reason: died.append((item, reason)),
    )  # fmt: skip
    assert sorted(results) == [1, 2, 3, 4]
    assert died == [(-1, "its worker process died 3 times")]


def test_a_dead_worker_is_an_error_without_on_error() -> None:
    with pytest.raises(AffectError, match=r"^-1: its worker process died 3 times.*runtime\.workers"):
        run_tasks(exit_if_negative, [-1], workers=1, on_result=lambda *_: None)


def test_a_cluster_that_fails_to_close_does_not_hide_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    close = LocalCluster.close

    def fails(self: LocalCluster, *args: Any, **options: Any) -> None:
        close(self, *args, **options)
        raise AssertionError("can only join a started process")

    monkeypatch.setattr(LocalCluster, "close", fails)
    with pytest.raises(ZeroDivisionError):
        run_tasks(reciprocal, [0], workers=1, on_result=lambda *_: None)


def test_a_scheduler_may_be_given() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as local:
        assert isinstance(local, LocalCluster)
        assert worker_slots(0, local.scheduler_address) == 1
        for _ in range(2):
            results: list[int] = []
            run_tasks(
                operator.neg,
                [5],
                workers=0,
                scheduler=local.scheduler_address,
                on_result=lambda *pair, results=results: results.extend(pair),
            )
            assert results == [5, -5]


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with pytest.raises(AffectError, match=r"no Dask scheduler answers at nonsense://x"):
        run_tasks(operator.neg, [5], workers=0, scheduler="nonsense://x", on_result=lambda *_: None)


def test_an_encrypted_address_needs_a_certificate() -> None:
    from dask import config

    with pytest.raises(
        AffectError, match=r"tls://127\.0\.0\.1:1 needs a certificate\. Set DASK_DISTRIBUTED__COMM__TLS__CA"
    ):
        run_tasks(operator.neg, [5], workers=0, scheduler="tls://127.0.0.1:1", on_result=lambda *_: None)
    with (
        config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(AffectError, match=r"require encryption, but tcp://127\.0\.0\.1:1 has none"),
    ):
        run_tasks(operator.neg, [5], workers=0, scheduler="tcp://127.0.0.1:1", on_result=lambda *_: None)


def test_worker_count() -> None:
    assert worker_count(0) == 0
    assert worker_count(7) == 7
    assert worker_count(-1) >= 1
    assert worker_count(-1, cores=1) >= worker_count(-1)
    assert worker_count(-1, cores=10**6) == 1


MASTER = "from affect.tests.cluster_tasks import run_blocked; run_blocked()"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_master(sent: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MASTER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as master:
        assert master.stdout is not None
        worker = int(master.stdout.readline())
        # Ctrl-C in a terminal goes to the whole group, a kill to one process.
        os.killpg(master.pid, sent) if sent is signal.SIGINT else master.kill()
        wait_for_exit(worker)
        stderr = master.communicate()[1]
    if sent is signal.SIGINT:
        assert stderr.count("Traceback") == 1
        assert stderr.rstrip().endswith("KeyboardInterrupt")


FEW_DESCRIPTORS = """
import operator, resource
from affect.pipeline import cluster
from affect.pipeline.cluster import run_tasks
from affect.pipeline.errors import AffectError

if __name__ == "__main__":
    import dask, distributed

    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 4096))
    try:
        run_tasks(operator.neg, range(4), workers=2, on_result=print)
    except AffectError as error:
        print(error)
"""


def test_workers_that_cannot_start_are_one_line_with_a_remedy(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FEW_DESCRIPTORS)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    assert "cannot be started" in done.stdout
    assert "ulimit -n" in done.stdout
    assert "Traceback" not in done.stdout
