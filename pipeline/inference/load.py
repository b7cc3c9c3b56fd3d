"""The settings to use a model with, and whether the model supports a request. Imports no torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...configs.schema import Config, load
from ..errors import InputError, MissingStageError, WeightsError
from ..learning.model_file import model_path, read_model_info
from ..progress import Reporter
from ..records import BASE, BASE_MODEL

EMOTIONS = 8
MAX_PEOPLE = 4
MODEL_REMEDY = "Give a run folder, for example work/train/default, or omit --model to use the base model."


def named_or_base(model: Path | None) -> Path:
    """The model to use: the base model if none is named, or if the name is `base` and there is no such file."""
    return BASE_MODEL if model is None or (str(model) == BASE and not model.exists()) else model


def settings_for(model: Path, overrides: Sequence[str] = (), config: str | None = None) -> Config:
    """The settings to use a model with: those of `config`, or else of the model's run, with the overrides.

    Raises MissingStageError, WeightsError, ConfigError.
    """
    file = model_path(model)
    if not file.is_file():
        raise MissingStageError(f"{file}: there is no model", MODEL_REMEDY)
    run_config = file.parent / "config.yaml"
    if config is None and run_config.is_file():
        config = str(run_config)
    if config is not None:
        return load(config, overrides)
    return load("demo", (*_as_overrides(read_model_info(model).config), *overrides))


def check_model(model: Path, reporter: Reporter, *, emotions: bool, people: int) -> tuple[str, ...]:
    """Checks that the model supports the request, without loading the weights.

    Returns the names of the emotions, or () if none are requested. Raises MissingStageError, WeightsError, InputError.
    """
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", MODEL_REMEDY)
    if not isinstance(people, int) or not 1 <= people <= MAX_PEOPLE:
        raise InputError(f"{people} people", f"Allowed: 1 to {MAX_PEOPLE}.")
    info = read_model_info(model)
    if info.notice:
        reporter.info(info.notice)
    localiser = info.localiser
    if people > 1 and localiser != "stn":
        raise InputError(
            f"{model} was trained with stn.localiser {localiser} and cannot find several people",
            "Use --people 1, or train with stn.localiser=stn.",
        )
    if localiser in ("box", "aligned"):
        reporter.warning(
            f"{model} was trained with stn.localiser {localiser} and cannot find faces by itself. "
            "It uses the whole picture, and the values will be less accurate"
        )
    classes = info.classes if emotions else ()
    if emotions and len(classes) != EMOTIONS:
        raise WeightsError(
            f"{model}: its backbone has {len(classes)} classes, expected {EMOTIONS} emotions",
            "Do not request emotions, or train with a backbone that `affect pretrain backbone` wrote.",
        )
    return classes


def _as_overrides(config: Config) -> list[str]:
    sections = config.model_dump(mode="json")
    return [
        f"{section}.{key}={json.dumps(value)}"
        for section, values in sections.items() if isinstance(values, dict) for key, value in values.items()
    ]  # fmt: skip
