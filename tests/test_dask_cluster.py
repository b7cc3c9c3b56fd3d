"""Two workers of a Dask scheduler, on other addresses: the checks of benchmarks/cluster, some of them."""

import pytest
from affect.benchmarks.cluster.dask_workers import CHECKS
from affect.benchmarks.cluster.demo import Demo, draw


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return draw(tmp_path_factory.mktemp("cluster"), ("extract-frames",))


@pytest.mark.parametrize(
    "name",
    [
        "extract-frames: one of two workers is killed",
        "a worker has another version of affect",
        "a worker does not see the folders",
        "a worker with other code joins late",
    ],
)
def test_workers_of_a_dask_scheduler(name: str, demo: Demo) -> None:
    """A check raises CheckError if the files differ from those of one process, or the message is wrong."""
    assert CHECKS[name](demo)
