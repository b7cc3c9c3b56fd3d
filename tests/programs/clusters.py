"""Dask schedulers and workers."""

import operator


def run_blocked() -> None:
    """Prints the process id of a worker whose next task never ends."""
    from affect.tests.cluster_tasks import run_blocked

    run_blocked()


def run_with_few_descriptors() -> None:
    """Starts workers where the process may open few files. Prints the error."""
    import resource

    import dask  # noqa: F401
    import distributed  # noqa: F401
    from affect.pipeline.cluster import run_tasks
    from affect.pipeline.errors import AffectError

    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 4096))
    try:
        run_tasks(operator.neg, range(4), workers=2, on_result=print)
    except AffectError as error:
        print(error)


def serve_scheduler() -> None:
    """Runs a scheduler with one worker. Prints its address."""
    import asyncio

    from distributed import Nanny, Scheduler

    async def serve() -> None:
        async with (
            Scheduler(host="127.0.0.1", port=0, dashboard_address=None, dashboard=False) as scheduler,
            Nanny(scheduler.address, nthreads=1, dashboard_address=None),
        ):
            print(scheduler.address, flush=True)
            await scheduler.finished()

    asyncio.run(serve())
