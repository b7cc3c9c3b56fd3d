"""affect export: writes a trained model as ONNX and as .pt2 of torch.export, and compares both with the original."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..features.video_digest import video_digest
from ..inference.inputs import find_videos
from ..inference.load import MODEL_REMEDY
from ..learning.model_file import ModelInfo, model_path, read_model_info
from ..progress import Reporter
from ..records import StageReport
from ..runs.export_parity import Comparison, summary_line
from ..runs.folder import read_result
from ..runs.model_card import card_facts, model_card
from ..storage.atomic import write_text
from ..storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...models.affect_net import AffectNet

STAGE = "export"
VERSION = 1
FORMATS = ("onnx", "pt2")
ENCODER_OUT = ("feature", "theta", "presence")
STATE = ("memory", "cell", "total", "seen")


@dataclass(frozen=True)
class _Part:
    """A network to export. axes: of each input, the axes that may have any length."""

    name: str
    modules: "dict[str, nn.Module]"
    example: "tuple[Tensor, ...]"
    axes: tuple[dict[int, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def export(
    config: Config,
    model: Path,
    out: Path,
    reporter: Reporter,
    *,
    check: Sequence[Path] = (),
    formats: Sequence[str] = FORMATS,
) -> StageReport:
    """Writes encoder and head as .onnx and .pt2, export.json and README.md (the model card) into `out`.

    model: a run folder or its model file. check: videos, folders or patterns on which both are compared and timed;
    without any, on random pictures. The ONNX files are moved into their place only when every value, box and presence
    agrees with torch to 1e-4, and every feature to 1e-4 of the largest. A video that cannot be read is in
    `failed`. Raises MissingStageError, MissingExtraError, WeightsError, InputError.
    """
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", MODEL_REMEDY)
    wrong = [name for name in formats if name not in FORMATS]
    if wrong:
        raise InputError(f"--format {wrong[0]!r} is unknown", f"Allowed: {', '.join(FORMATS)}.")
    info = read_model_info(model)
    files, failed = find_videos(check)
    key = fingerprint(
        version=VERSION,
        model=info.fingerprint,
        formats=sorted(formats),
        check=[video_digest(it) for it in files],
    )
    kept = _kept(out, key)
    if kept is not None:
        return StageReport(STAGE, out, (), tuple(sorted(kept["files"])), tuple(failed), kept)

    from ..inference.predictor import Predictor
    from ..learning.model_file import load_model
    from ..learning.runtime import environment, pick_compute
    from ..runs.portable_file import beside, need_onnx

    if "onnx" in formats:
        need_onnx()
    runtime = config.runtime.model_copy(update={"device": "cpu", "precision": "fp32"})
    on_cpu = config.model_copy(update={"runtime": runtime})
    net, _ = load_model(model)
    parts = _parts(net, info.config)
    with beside(out) as draft:
        for part in parts:
            for form in formats:
                began = time.perf_counter()
                _write(draft / f"{part.name}.{form}", part, form)
                reporter.info(f"{STAGE}  {part.name}.{form}: {time.perf_counter() - began:.0f} s")
        facts = _describe(info, net, parts)
        facts["files"] = {path.name: path.stat().st_size for path in sorted(draft.iterdir())}
        compare = Comparison(Predictor(model, on_cpu), info.config, draft, formats)
        facts["parity"], more = compare.videos(files, deadline=config.runtime.decode_seconds)
        failed += more
        for row in facts["parity"]:
            reporter.info(f"{STAGE}  {summary_line(row)}")
        for path in sorted(draft.iterdir()):
            path.replace(out / path.name)
    write_text(out / "README.md", model_card(info.metadata, card_facts(model), exported=facts))
    computed = environment(pick_compute(on_cpu.runtime), ("onnx", "onnxruntime"))
    text = json.dumps({"fingerprint": key, "environment": computed, "facts": facts}, indent=1) + "\n"
    write_text(out / "export.json", text)
    return StageReport(STAGE, out, tuple(sorted(facts["files"])), (), tuple(failed), facts)


def _kept(out: Path, key: str) -> dict[str, Any] | None:
    """The facts of the last export, if it has this fingerprint and all its files are there."""
    found = read_result(out / "export.json", key)
    try:
        facts = found["facts"] if found else None
        complete = facts and all((out / name).stat().st_size == size for name, size in facts["files"].items())
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return facts if complete else None


def _parts(net: "AffectNet", its_config: Config) -> list[_Part]:
    import torch

    from ...models.portable import PortableClip, PortableEncoder, PortableStep, streams

    side, width = its_config.frames.size, net.head.mean.numel()
    encoder = PortableEncoder(net, finds=its_config.stn.localiser == "stn")
    frames = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parts = [_Part("encoder", dict.fromkeys(FORMATS, encoder), (frames,), ({0: "batch"},), ("frames",), ENCODER_OUT)]
    if not streams(net.head):
        clip = torch.zeros(2, its_config.clip.length, width)
        modules: dict[str, nn.Module] = {
            "onnx": PortableClip(net.head, time_varies=True),
            "pt2": PortableClip(net.head),
        }
        parts.append(_Part("head", modules, (clip,), ({0: "batch", 1: "time"},), ("features",), ("frame", "clip")))
    else:
        step = PortableStep(net.head)
        example = (torch.zeros(2, 1, width), *step.start(2))
        axes: tuple[dict[int, str], ...] = ({0: "batch"}, {1: "batch"}, {1: "batch"}, {0: "batch"}, {})
        inputs, outputs = ("feature", *STATE), ("frame", "clip", *(f"next_{name}" for name in STATE))
        parts.append(_Part("head", dict.fromkeys(FORMATS, step), example, axes, inputs, outputs))
    return parts


def _write(path: Path, part: _Part, form: str) -> None:
    from ..runs.portable_file import write_onnx, write_pt2

    if form == "onnx":
        write_onnx(path, part.modules[form], part.example, part.axes, part.inputs, part.outputs)
    else:  # torch.export fixes the length of an LSTM to that of the example
        axes = tuple({axis: name for axis, name in places.items() if name != "time"} for places in part.axes)
        write_pt2(path, part.modules[form], part.example, axes)


def _describe(info: ModelInfo, net: "AffectNet", parts: Sequence[_Part]) -> dict[str, Any]:
    """The facts that another program needs to use the files."""
    from ...models.portable import streams

    return {
        "model": info.fingerprint,
        "frames": {"side": info.frame_size, "layout": "uint8 [batch, 3, side, side]", "colour": "RGB, 0 to 255"},
        "theta": "the face box: x0 = (tx - sx + 1) / 2 of the width; [[sx, 0, tx], [0, sy, ty]]",
        "clip": {"length": info.clip_length, "hop": info.config.clip.hop},
        "head": "stream" if streams(net.head) else "clip",
        "inputs": {part.name: list(part.inputs) for part in parts},
        "outputs": {part.name: list(part.outputs) for part in parts},
    }
