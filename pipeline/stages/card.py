"""The model card: what a model is, what it learned from, how good it is, and what may be done with it. Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..learning.model_file import model_path

CARD = "README.md"
SHOWN = 8
"""Names of subjects that are written out."""

LIMITS = """\
- Valence and arousal are what annotators saw in faces, not what a person felt. Do not decide over people by them.
- It knows the people, cameras and languages of the data above. On others it is worse, by how much nobody has measured
  until you do: `affect evaluate` on labels of your own.
- One face per subject: with several people in the picture it follows the one it chooses."""

DUTIES = {
    "work": "the weights of `affect pretrain` and `affect adapt`: the terms of FER2013 (Kaggle), the FER+ labels (MIT) "
    "and of the data set they were adapted on",
    "imagenet": "torchvision's ImageNet weights: the pictures of ImageNet are for research",
    "scratch": "no pretrained weights",
}


def model_card(
    metadata: Mapping[str, Any], facts: Mapping[str, Any], *, exported: Mapping[str, Any] | None = None
) -> str:
    """metadata: of the model file. facts: run.json, and under `evaluations` those of evaluate, by split. exported: what
    `affect export` wrote, where the card lies beside that."""
    config = metadata["config"]
    parts = [
        f"# affect model `{metadata.get('run', 'model')}`",
        "Valence and arousal in [-1, 1] from a video of a face, for every frame: a spatial transformer finds the\n"
        "face, a ResNet-50 describes it in 2048 numbers, an LSTM reads them over time.",
        _use(exported, config),
        "## What it learned from\n\n" + _learned(facts, config),
        "## How good it is\n\n" + _figures(metadata, facts),
        "## Limits\n\n" + LIMITS,
        "## Licence\n\n" + _duties(config),
    ]
    if exported:
        parts.insert(3, "## The files\n\n" + _files(exported))
    return "\n\n".join(parts) + "\n"


def card_facts(model: Path) -> dict[str, Any]:
    """What lies beside a model file: run.json and the evaluations. Empty where nothing does."""
    folder = model_path(model).parent
    facts = _read(folder / "run.json")
    found = {path.stem.removeprefix("evaluation-"): _read(path) for path in sorted(folder.glob("evaluation-*.json"))}
    return {**facts, "evaluations": found}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _use(exported: Mapping[str, Any] | None, config: Mapping[str, Any]) -> str:
    if not exported:
        return "    affect predict VIDEO --model THIS_FOLDER --out OUT"
    side = config["frames"]["size"]
    way = (
        "`head` takes the features of a clip, [batch, time, 2048]; `export.json` says how long they are, how far apart."
        if exported["head"] == "clip"
        else "`head` takes the feature of the next frame, [batch, 1, 2048], and the state that it gave back with the "
        "last one; zeros at the start."
    )
    return (
        f"`encoder` takes frames as uint8 [batch, 3, {side}, {side}], RGB: each frame resized to that square,\n"
        f"whatever its shape. It gives feature, theta (the face box) and presence (the probability of a face).\n{way}"
    )


def _files(exported: Mapping[str, Any]) -> str:
    lines = ["| file | MB |", "|---|---|"]
    lines += [f"| `{name}` | {size / 1e6:.1f} |" for name, size in exported["files"].items()]
    lines += ["", "Compared with torch when they were written:", ""]
    lines += ["| on | frames | values apart by at most | box by | frames/s |", "|---|---|---|---|---|"]
    for row in exported["parity"]:
        rates = ", ".join(f"{name} {rate:,.1f}" for name, rate in row["frames_per_second"].items())
        lines.append(f"| {row['video']} | {row['frames']} | {row['value']:.1e} | {row['theta']:.1e} | {rates} |")
    return "\n".join(lines)


def _learned(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    lines = []
    for split, word in (("train", "to learn from"), ("validation", "to choose the epoch by")):
        names = facts.get(split)
        if names:
            lines.append(f"- {len(names)} subjects {word}: {_names(names)}")
    lines.append(
        f"- Config `{config['name']}`; faces found by `{config['stn']['localiser']}`; seed {config['runtime']['seed']}"
    )
    if config["name"] == "demo":
        lines.append(
            "- The demo config is for drawn faces. Unless other data were given, this model has never seen a real one."
        )
    env = facts.get("environment")
    if env:
        lines.append(
            f"- affect {env.get('affect')}, torch {env.get('torch')}, {env.get('device')}, {env.get('precision')}"
        )
    return "\n".join(lines)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _figures(metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    own = metadata.get("metrics") or {}
    rows = [("validation, in training", {key.removeprefix("validation_"): value for key, value in own.items()})]
    rows += list((facts.get("evaluations") or {}).items())
    lines = ["| split | CCC valence | CCC arousal | mean |", "|---|---|---|---|"]
    for name, figures in rows:
        cells = [figures.get(f"ccc_{what}") for what in ("valence", "arousal", "mean")]
        lines.append(f"| {name} | " + " | ".join("–" if it is None else f"{it:.3f}" for it in cells) + " |")
    return (
        "\n".join(lines)
        + "\n\nCCC over all annotated frames of the split together. The epoch was chosen by the first row."
    )


def _duties(config: Mapping[str, Any]) -> str:
    weights = config["backbone"]["weights"]
    start = DUTIES.get(weights, f"`{Path(weights).name}`: the terms of the page it came from")
    return (
        "The code is under the MIT licence. A model inherits the duties of its data and weights:\n\n"
        f"- its backbone began with {start};\n"
        "- Aff-Wild2, if it learned from it: research only, by the EULA signed for it; cite the papers it names;\n"
        "- labels and videos of your own: what their people agreed to."
    )
