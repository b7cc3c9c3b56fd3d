"""The model card in Markdown: what a model is, its training data, its metrics, its limits and its licence."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..learning.model_file import model_path

CARD = "README.md"
MAX_NAMES = 8
"""Subject names in a list."""

LIMITS = """\
- Valence and arousal are what annotators saw in faces, not what a person felt. Do not use them to make decisions about
  people.
- The model was trained on the people, cameras and languages of the data above, and is worse on others. Measure it with
  `affect evaluate` on your own labels.
- One face per subject: if several people are in the picture, it follows one of them."""

TERMS = {
    "work": "the weights of `affect pretrain` and `affect adapt`: the terms of FER2013 (Kaggle), the FER+ labels (MIT) "
    "and of the data set they were adapted on",
    "imagenet": "torchvision's ImageNet weights: the pictures of ImageNet are for research",
    "scratch": "no pretrained weights",
}


def model_card(
    metadata: Mapping[str, Any], facts: Mapping[str, Any], *, exported: Mapping[str, Any] | None = None
) -> str:
    """metadata: of the model file. facts: run.json, with the results of `affect evaluate` by split in `evaluations`.
    exported: facts of `affect export`, for the card of exported files."""
    config = metadata["config"]
    parts = [
        f"# affect model `{metadata.get('run', 'model')}`",
        "Predicts valence and arousal in [-1, 1] for each frame of a video: a spatial transformer finds the face, a\n"
        "ResNet-50 computes 2048 features, and a temporal head reads them over time.",
        _use(exported, config),
        "## Training\n\n" + _training(facts, config),
        "## Metrics\n\n" + _metrics(metadata, facts),
        "## Limits\n\n" + LIMITS + _unlike(metadata.get("reference")),
        "## Licence\n\n" + _terms(config),
    ]
    if exported:
        parts.insert(3, "## Files\n\n" + _files(exported))
    return "\n\n".join(parts) + "\n"


def card_facts(model: Path) -> dict[str, Any]:
    """run.json and the evaluations in the folder of a model file; empty if there are none."""
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
    head = (
        "`head` takes the features of a clip, [batch, time, 2048]. `export.json` has their length and hop."
        if exported["head"] == "clip"
        else "`head` takes the features of the next frame, [batch, 1, 2048], and the state returned for the frame "
        "before; zeros at the start."
    )
    return (
        f"`encoder` takes frames as uint8 [batch, 3, {side}, {side}], RGB. Each frame is resized to that\n"
        f"square. It returns feature, theta (the face box) and presence (the probability of a face).\n{head}"
    )


def _files(exported: Mapping[str, Any]) -> str:
    lines = ["| file | MB |", "|---|---|"]
    lines += [f"| `{name}` | {size / 1e6:.1f} |" for name, size in exported["files"].items()]
    lines += ["", "Comparison with torch:", ""]
    lines += ["| video | frames | largest difference of values | of boxes | frames/s |", "|---|---|---|---|---|"]
    for row in exported["parity"]:
        rates = ", ".join(f"{name} {rate:,.1f}" for name, rate in row["frames_per_second"].items())
        lines.append(f"| {row['video']} | {row['frames']} | {row['value']:.1e} | {row['theta']:.1e} | {rates} |")
    return "\n".join(lines)


def _training(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    lines = []
    for split, word in (("train", "for training"), ("validation", "for validation")):
        names = facts.get(split)
        if names:
            lines.append(f"- {len(names)} subjects {word}: {_names(names)}")
    lines.append(
        f"- Config `{config['name']}`; faces found by `{config['stn']['localiser']}`; seed {config['runtime']['seed']}"
    )
    if config["name"] == "demo":
        lines.append("- The demo config is for drawn faces. With the demo data, this model has never seen a real face.")
    env = facts.get("environment")
    if env:
        lines.append(
            f"- affect {env.get('affect')}, torch {env.get('torch')}, {env.get('device')}, {env.get('precision')}"
        )
    return "\n".join(lines)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")


def _metrics(metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    own = metadata.get("metrics") or {}
    rows = [("validation, during training", {key.removeprefix("validation_"): value for key, value in own.items()})]
    rows += list((facts.get("evaluations") or {}).items())
    lines = ["| split | CCC valence | CCC arousal | mean |", "|---|---|---|---|"]
    for name, figures in rows:
        cells = [figures.get(f"ccc_{what}") for what in ("valence", "arousal", "mean")]
        lines.append(f"| {name} | " + " | ".join("–" if it is None else f"{it:.3f}" for it in cells) + " |")
    return (
        "\n".join(lines)
        + "\n\nCCC over all annotated frames of a split together. The best epoch was chosen by the first row."
    )


def _unlike(reference: Mapping[str, Any] | None) -> str:
    if not reference:
        return (
            "\n- The model has no reference of its training faces, so affect cannot tell a video that is unlike them."
        )
    return (
        f"\n- affect compares the faces of each video with the training faces and with {reference['people']} people "
        "that were left out, and warns if they lie beyond them. It cannot tell all other faults of a video."
    )


def _terms(config: Mapping[str, Any]) -> str:
    weights = config["backbone"]["weights"]
    start = TERMS.get(weights, f"`{Path(weights).name}`: the terms of the page it came from")
    return (
        "The code has the MIT licence. For the model, the terms of its data and weights also apply:\n\n"
        f"- initial weights of the backbone: {start};\n"
        "- Aff-Wild2, if it was used: research only, according to its EULA; cite the papers that it names;\n"
        "- your own labels and videos: what the people in them agreed to."
    )
