"""Single flipped bits in shards: verify finds each, and reading gives either an error or what was written."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from affect.pipeline.errors import ShardError
from affect.pipeline.storage.damage import forget
from affect.pipeline.storage.jpeg import encode
from affect.pipeline.storage.shard import FEATURES, FRAMES, Shard, ShardWriter

Content = dict[str, Any]


def run(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Half of the flips in a shard of frames, half in one of features; every other one among HDF5's own tables."""
    rng = np.random.default_rng(seed)
    shards = make_shards(folder, rng)
    sound = {kind: (path.read_bytes(), content(path, kind)) for kind, path in shards.items()}
    tables = {kind: table_bytes(data, said) for kind, (data, said) in sound.items()}
    found: Counter[str] = Counter()
    for number in range(count):
        kind = FEATURES if number % 2 else FRAMES
        data, said = sound[kind]
        among = tables[kind] if number % 4 > 1 else None
        place = int(rng.choice(among)) if among is not None else int(rng.integers(0, len(data)))
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path = shards[kind]
        path.write_bytes(changed)
        verified, read = outcomes(path, kind, said)
        found[f"verify: {verified}"] += 1
        found[f"reading: {read}"] += 1
        if verified != "found" or read == "wrong":
            say(f"  byte {place} of {path.name}: verify {verified}, reading {read}")
    names = ("verify: found", "verify: missed", "reading: refused", "reading: as written", "reading: wrong")
    return {"flips": count, **{name: found[name] for name in names}}


def make_shards(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """One of each kind, with data that does not compress into sameness, of several chunks."""
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
    """All that a reader gets to see."""
    with Shard(path, kind) as shard:
        seen: Content = {name: shard.read(name) for name in shard.names}
        return seen | {"": (shard.fingerprint, shard.source, shard.settings, shard.attributes, shard.names)}


def table_bytes(data: bytes, said: Content) -> np.ndarray:
    """Places that hold none of the large arrays: HDF5's tables, attributes and what lies between."""
    free = np.ones(len(data), bool)
    for name, array in said.items():
        if name and array.nbytes > 4096:
            rows = max(1, 4096 // (array.nbytes // len(array)))
            for start in range(0, len(array), rows):
                piece = array[start : start + rows].tobytes()
                place = data.find(piece)
                if place >= 0:
                    free[place : place + len(piece)] = False
    return np.flatnonzero(free)


def outcomes(path: Path, kind: str, said: Content) -> tuple[str, str]:
    """(found or missed by verify; refused, as written or wrong when read)."""
    try:
        with Shard(path, kind) as shard:
            shard.verify()
        verified = "missed"
    except ShardError:
        verified = "found"
    forget(path)  # what reading finds by itself, not what verify said
    try:
        seen = content(path, kind)
    except ShardError:
        return verified, "refused"
    same = seen.keys() == said.keys() and seen[""] == said[""]
    same = same and all(np.array_equal(seen[name], said[name]) for name in said if name)
    return verified, "as written" if same else "wrong"
