"""Flips single bits in shards. `verify` must find each one; reading must raise an error or return the original data."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from affect.pipeline.errors import ShardError
from affect.pipeline.storage.corruption import clear_mark
from affect.pipeline.storage.jpeg import encode
from affect.pipeline.storage.shard import FEATURES, FRAMES, Shard
from affect.pipeline.storage.shard_writer import ShardWriter

Content = dict[str, Any]


def run(folder: Path, count: int, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Flips bits in a shard of frames and one of features, alternately. Half of them are in HDF5's own tables."""
    rng = np.random.default_rng(seed)
    shards = make_shards(folder, rng)
    intact = {kind: (path.read_bytes(), content(path, kind)) for kind, path in shards.items()}
    tables = {kind: table_bytes(data, expected) for kind, (data, expected) in intact.items()}
    found: Counter[str] = Counter()
    for number in range(count):
        kind = FEATURES if number % 2 else FRAMES
        data, expected = intact[kind]
        candidates = tables[kind] if number % 4 > 1 else None
        position = int(rng.choice(candidates)) if candidates is not None else int(rng.integers(0, len(data)))
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        path = shards[kind]
        path.write_bytes(changed)
        verified, read = outcomes(path, kind, expected)
        found[f"verify: {verified}"] += 1
        found[f"reading: {read}"] += 1
        if verified != "found" or read == "wrong":
            log(f"  byte {position} of {path.name}: verify {verified}, reading {read}")
    names = ("verify: found", "verify: missed", "reading: refused", "reading: correct", "reading: wrong")
    return {"flips": count, **{name: found[name] for name in names}}


def make_shards(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Writes one shard of each kind, with random data in several chunks."""
    rows = 300
    pictures = rng.integers(0, 255, (rows, 24, 24, 3), np.uint8)
    jpegs = encode(pictures, 90)
    index, pts = np.arange(rows), np.arange(rows) / 25
    with ShardWriter(folder / "frames.h5", FRAMES, "f" * 64, {"size": 24}, "v.mp4", {"lost": [3, 9]}) as writer:
        offset = np.concatenate(([0], np.cumsum([len(jpeg) for jpeg in jpegs])))
        writer.append(jpeg=np.concatenate(jpegs), offset=offset, index=index, pts=pts)
    with ShardWriter(folder / "features.h5", FEATURES, "e" * 64, {"views": 1}, "v", {"split": "train"}) as writer:
        feature = rng.normal(size=(rows, 256)).astype(np.float16)
        target = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
        writer.append(feature=feature, target=target, valid=rng.random(rows) < 0.8, index=index, pts=pts)
    return {FRAMES: folder / "frames.h5", FEATURES: folder / "features.h5"}


def content(path: Path, kind: str) -> Content:
    """Everything that a reader of the shard can get."""
    with Shard(path, kind) as shard:
        arrays: Content = {name: shard.read(name) for name in shard.names}
        return arrays | {"": (shard.fingerprint, shard.source, shard.settings, shard.attributes, shard.names)}


def table_bytes(data: bytes, arrays: Content) -> np.ndarray:
    """The byte positions outside of the large arrays: HDF5's tables, attributes and gaps."""
    free = np.ones(len(data), bool)
    for name, array in arrays.items():
        if name and array.nbytes > 4096:
            rows = max(1, 4096 // (array.nbytes // len(array)))
            for start in range(0, len(array), rows):
                chunk = array[start : start + rows].tobytes()
                position = data.find(chunk)
                if position >= 0:
                    free[position : position + len(chunk)] = False
    return np.flatnonzero(free)


def outcomes(path: Path, kind: str, expected: Content) -> tuple[str, str]:
    """The results of verify (`found` or `missed`) and of reading (`refused`, `correct` or `wrong`)."""
    try:
        with Shard(path, kind) as shard:
            shard.verify()
        verified = "missed"
    except ShardError:
        verified = "found"
    clear_mark(path)  # remove the mark of verify, to test what reading finds by itself
    try:
        found = content(path, kind)
    except ShardError:
        return verified, "refused"
    same = found.keys() == expected.keys() and found[""] == expected[""]
    same = same and all(np.array_equal(found[name], expected[name]) for name in expected if name)
    return verified, "correct" if same else "wrong"
