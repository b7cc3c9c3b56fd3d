"""Processes that hold locks and write files. Their standard input ends them."""

import sys
from pathlib import Path


def write_until_killed(folder: str) -> None:
    """Begins a file and a temporary folder, prints "writing" and waits."""
    from affect.pipeline.storage.atomic import replacing, temporary_folder

    with replacing(Path(folder) / "x.txt") as file, temporary_folder(Path(folder), "export") as parts:
        file.write_text("half")
        (parts / "part").write_text("half")
        print("writing", flush=True)
        sys.stdin.read()


def hold_lock(folder: str, *options: str) -> None:
    """Locks a folder, prints "held" and waits. options: "shared", "wait"."""
    from affect.pipeline.storage.lock import lock_folder

    with lock_folder(Path(folder), shared="shared" in options, wait="wait" in options):
        print("held", flush=True)
        sys.stdin.read()


def fill_shard(path: str, room: str) -> None:
    """Writes a shard larger than the largest file that the system allows, `room` bytes. Prints the error."""
    import resource
    import signal

    import numpy as np
    from affect.pipeline.errors import WorkError
    from affect.pipeline.storage.shard import FEATURES
    from affect.pipeline.storage.shard_writer import ShardWriter

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
    try:
        with ShardWriter(Path(path), FEATURES, "f", {}, "v") as writer:
            for _ in range(40):
                writer.append(index=np.arange(20_000), feature=np.ones((20_000, 2)))
    except WorkError as error:
        print(error)
