"""Which of several processes this one is, where torchrun has started them. No heavy imports."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """This process among `world`: rank of all, local of those on this machine. Rank 0 writes and speaks."""

    rank: int = 0
    world: int = 1
    local: int = 0


def place() -> Place:
    """As torchrun has it in the environment; alone where there is nothing."""
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return Place()
    rank = int(os.environ["RANK"])
    return Place(rank, int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", rank)))
