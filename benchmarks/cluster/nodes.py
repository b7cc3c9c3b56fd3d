"""Training on two nodes with torchrun: the same network as one process trains, also after the loss of a node."""

import json
import math
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from affect.pipeline.storage.checkpoint import load_weights

from .checks import Check, CheckError, expect
from .demo import Demo, draw
from .processes import Process, begin, code_of, ended, kill, until

HOSTS = ("127.0.0.2", "127.0.0.3")
TOLERANCE = 2e-3
"""The largest difference between the losses of one process and of two. Sums in another order differ in the last bits,
and each epoch adds to that."""
EXACT = ("head.dropout=0", "train.noise=0", "train.time_mask=0", "train.ema=0", "runtime.precision=fp32")
"""Nothing is drawn at random in each process."""
KEYS = ("train_loss", "validation_ccc_mean")


def nodes(folder: Path) -> Iterator[Check]:
    demo = draw(folder, ("extract-frames", "cache-features"))
    for kind, words in (("from cache", ()), ("end to end", ("--end-to-end",))):
        yield Check(f"train {kind}: same loss curve as one process", partial(same_curve, demo, words))
    yield Check("train from cache: the second node dies", partial(node_dies, demo, (), 1))
    yield Check("train end to end: the node of the rendezvous dies", partial(node_dies, demo, ("--end-to-end",), 0))
    yield Check("the second node sees another work folder", partial(other_folder, demo))


def same_curve(demo: Demo, words: tuple[str, ...]) -> str:
    own = demo.folder / f"curve{''.join(words)}"
    work = demo.work(own.name, "train")
    alone = command(demo, work, *words, "--run", "one", settings=EXACT)
    done = subprocess.run(alone, capture_output=True, text=True, check=False)
    expect(done.returncode in (0, 3), f"one process: exit code {done.returncode}: {done.stderr[-400:]}")
    finish(*start(own, demo, work, *words, "--run", "two", settings=EXACT))
    one, two = (curve(work, run) for run in ("one", "two"))
    expect(len(one) == len(two) > 1, f"{len(one)} and {len(two)} epochs")
    difference = max(abs(a[key] - b[key]) for a, b in zip(one, two, strict=True) for key in KEYS)
    expect(difference < TOLERANCE, f"the curves differ by {difference:.2g}")
    return f"{len(one)} epochs, largest difference {difference:.1g}"


def node_dies(demo: Demo, words: tuple[str, ...], number: int) -> str:
    """A node is killed after the first epoch. The same command continues, and gives the weights of a run without it."""
    own = demo.folder / f"dies-{number}"
    work = demo.work(own.name, "train")
    settings = ("train.epochs=6", "train.state_minutes=0.0001", "train.patience=6")
    finish(*start(own, demo, work, *words, "--run", "whole", settings=settings))
    both, logs = start(own, demo, work, *words, "--run", "broken", settings=settings)
    with ended(both):
        folder = work / "train" / "broken"
        until(lambda: len(curve(work, "broken")) >= 1, "the first epoch ends", *both)
        kill(both[number], signal.SIGSTOP)
        expect((folder / "state.pt").is_file(), "the run has no state file")
        expect(not (folder / "model.safetensors").exists(), "the run ended before the node was killed")
        kill(both[number])
        code = code_of(both[1 - number])
    text = logs[1 - number].read_text(encoding="utf-8", errors="replace")
    line = next((line for line in text.splitlines() if line.startswith("error: ")), "")
    expect(code == 1, f"the other node ended with code {code}: {text[-400:]}")
    expect("another process of this training was lost" in line, f"the other node said: {text[-400:]}")
    _, logs = finish(*start(own, demo, work, *words, "--run", "broken", settings=settings))
    expect(any("resuming after epoch" in log.read_text(encoding="utf-8") for log in logs), "it began again")
    whole, broken = (load_weights(work / "train" / run / "model.safetensors")[0] for run in ("whole", "broken"))
    expect(all(bool((whole[name] == broken[name]).all()) for name in whole), "other weights than without the loss")
    return "the other ended with code 1 and the reason; the same command continued to equal weights"


def other_folder(demo: Demo) -> str:
    """The second node has its own copy of the work folder, where a frame shard is newer."""
    own = demo.folder / "other-folder"
    works = [demo.work(f"{own.name}/{name}", "train") for name in ("one", "two")]
    shard = next((works[1] / "features").glob("*.h5"))
    shard.unlink()
    words = [command(demo, work, "--run", "r") for work in works]
    both, logs = start_nodes(own, words)
    codes = finish(both, logs, check=False)[0]
    text = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
    line = next((line for line in text.splitlines() if line.startswith("error: ")), "")
    expect("see different data, settings or files" in line, f"the error is: {line or text[-400:]}")
    expect(all(codes), f"exit codes {codes}")
    expect(not any((work / "train" / "r" / "metrics.jsonl").exists() for work in works), "the training began")
    return line.removeprefix("error: ").split(". ")[0]


def command(demo: Demo, work: Path, *words: str, settings: tuple[str, ...] = ()) -> list[str | Path]:
    return [*demo.words("train", work), *words, *(word for setting in settings for word in ("--set", setting))]


def start(
    own: Path, demo: Demo, work: Path, *words: str, settings: tuple[str, ...] = ()
) -> tuple[list[Process], list[Path]]:
    """Starts the command on two nodes. Returns their processes and logs."""
    return start_nodes(own, [command(demo, work, *words, settings=settings)] * 2)


def start_nodes(own: Path, commands: list[list[str | Path]]) -> tuple[list[Process], list[Path]]:
    port, both, logs = free_port(), [], [own / "node-0.log", own / "node-1.log"]
    for host, log, words in zip(HOSTS, logs, commands, strict=True):
        torchrun = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HOSTS[0]}:{port}", "--rdzv-id", "affect",
            "--rdzv-conf", f"is_host={host == HOSTS[0]}", "--local-addr", host, "-m", "--", *words[2:],
        ]  # fmt: skip
        both.append(begin(torchrun, log, env={"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}))
    return both, logs


def finish(both: list[Process], logs: list[Path], *, check: bool = True) -> tuple[list[int], list[Path]]:
    """The exit codes of the nodes, when they have ended. check: they must have succeeded."""
    with ended(both):
        codes = [code_of(process) for process in both]
    for code, log in zip(codes, logs, strict=True):
        if check and code:
            raise CheckError(f"{log.stem}: exit code {code}: {log.read_text(encoding='utf-8')[-600:]}")
    return codes, logs


def curve(work: Path, run: str) -> list[dict[str, float]]:
    """The finished epochs of a run."""
    file = work / "train" / run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    expect(all(math.isfinite(line["train_loss"]) for line in found), f"{run}: the loss is not finite")
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HOSTS[0], 0))
        return free.getsockname()[1]
