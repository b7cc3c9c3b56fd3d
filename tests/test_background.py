"""Functions in a background process."""

import math
import operator
import os
import signal

import pytest
from affect.pipeline.background import Background, BackgroundDied
from affect.tests.waiting import wait_until


def test_tasks_run_in_order_in_one_other_process() -> None:
    with Background() as background:
        for number in range(20):
            background.submit(math.sqrt, number)
        background.submit(os.getpid)
        assert [background.result() for _ in range(20)] == [math.sqrt(number) for number in range(20)]
        assert background.result() != os.getpid()


def test_an_error_is_raised_here_and_ends_the_process() -> None:
    with Background() as background:
        background.submit(operator.truediv, 1, 0)
        background.submit(operator.truediv, 1, 2)
        with pytest.raises(ZeroDivisionError):
            background.result()
        with pytest.raises(BackgroundDied):
            background.result()


def test_a_process_that_dies_is_reported_and_waits_for_nobody() -> None:
    with Background() as background:
        background.submit(signal.raise_signal, signal.SIGKILL)
        background.submit(math.sqrt, 4)
        for _ in range(2):
            with pytest.raises(BackgroundDied, match="SIGKILL"):
                background.result()
        background.submit(math.sqrt, 4)


def test_ctrl_c_does_not_reach_it() -> None:
    with Background() as background:
        background.submit(signal.raise_signal, signal.SIGINT)
        background.submit(math.sqrt, 4)
        wait_until(background.is_ready)
        assert [background.result() for _ in range(2)] == [None, 2]
