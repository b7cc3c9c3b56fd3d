"""Each function uses a part of affect and prints the libraries that it imported."""

import importlib
import json
import sys
from pathlib import Path


def run_stage(name: str, config: str, data: str, work: str) -> None:
    """Runs a stage with a config file. Prints its report with the libraries, as JSON."""
    from affect.configs.schema import load
    from affect.pipeline.progress import Reporter
    from affect.pipeline.records import Work

    stage = getattr(importlib.import_module(f"affect.pipeline.stages.{name}"), name)
    report = stage(load(config), Path(data), Work(Path(work)), Reporter())
    print(json.dumps({**report.as_json(), "libraries": _libraries()}))


def import_affect() -> None:
    import affect

    print(affect.__version__)
    _print_libraries()


def plan_encoder(weights: str, work: str) -> None:
    from affect.configs.schema import load
    from affect.pipeline.features.encoder import plan_encoder
    from affect.pipeline.records import Work

    plan_encoder(load("demo", ["stn.localiser=box", "adapt.epochs=0", f"backbone.weights={weights}"]), Work(Path(work)))
    _print_libraries()


def read_metadata(path: str) -> None:
    from affect.pipeline.storage.checkpoint import read_metadata

    print(read_metadata(Path(path))["format"])
    _print_libraries()


def decode(video: str) -> None:
    from affect.pipeline.ingest.video.decode import decode

    print(sum(len(batch) for batch in decode(Path(video), 64)))
    _print_libraries()


def _print_libraries() -> None:
    print(*_libraries())


def _libraries() -> list[str]:
    return sorted({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names)
