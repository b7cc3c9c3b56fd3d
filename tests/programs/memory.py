"""Measurements that need a process of their own."""


def page_faults_of_layers() -> None:
    """Allocates and frees 64 MiB 21 times. Prints the page faults of each time."""
    import resource

    import torch
    from affect.pipeline.learning.runtime import keep_freed_memory

    keep_freed_memory(torch.device("cpu"))

    def layer() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    print(*(layer() for _ in range(21)))


def sleeps_of_threads(run: str, *first: str) -> None:
    """Imports `first`, then affect, and loads a model. Prints the number of threads, and how often they went to sleep
    while they had nothing to do, in 200 operations."""
    import importlib
    import threading
    from pathlib import Path

    for name in first:
        importlib.import_module(name)
    import affect

    affect.load(Path(run))
    import torch

    large = torch.zeros(1 << 20)

    def sleeps() -> int:
        tasks = [path for path in Path("/proc/self/task").iterdir() if int(path.name) != threading.get_native_id()]
        lines = [line for path in tasks for line in (path / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

    large.add_(1)
    before = sleeps()
    for _ in range(200):
        large.add_(1)
        sum(range(30_000))  # in this thread alone: meanwhile the others have nothing to do
    print(torch.get_num_threads(), sleeps() - before)


def spin_count() -> None:
    """Prints a setting of OpenMP after `import affect`."""
    import os

    import affect  # noqa: F401

    print(os.environ.get("GOMP_SPINCOUNT"))


def draw_figure(path: str) -> None:
    """Draws a figure to a file. Prints whether matplotlib uses TeX."""
    from pathlib import Path

    from affect.pipeline.visualization.style import LIGHT, drawing, heading, save

    with drawing(LIGHT, 3, 2) as figure:
        axes = figure.add_subplot()
        axes.plot([1, 3, 2])
        heading(axes, "caf\udce9_$x$\n한", "remark")
        save(figure, Path(path))
    import matplotlib

    print(matplotlib.rcParams["text.usetex"])
