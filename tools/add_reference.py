"""Adds to a model that was trained on FER+ how its training faces look, so that affect can warn of videos unlike them.

    python tools/add_reference.py FERPLUS [--faces DIR] [--model FILE] [--detector yunet.onnx] [--keep DIR]

FERPLUS: the folder with fer2013.csv and fer2013new.csv. DIR: pictures with a boxes.csv, in lfw/ (real faces), crowd/
(real faces, some with a mask) and none/ (no people); default: ../shared/data/faces. The model is not trained again.

Training faces are the training rows of FER+, cut as for the training, and real faces as affect finds them, because
videos are read so. Other kinds are masks, pictures without people, drawn people and filtered faces. People of
PublicTest and of the part `calibration` give the percentiles. A fifth of the pictures is kept for
`python -m affect.benchmarks.unlike`. About four minutes on two cores.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from affect.benchmarks.unlike import kinds
from affect.pipeline.inference.load import settings_for
from affect.pipeline.inference.predictor import Predictor
from affect.pipeline.ingest import ferplus as fer
from affect.pipeline.learning.augment import augment, crop_centre
from affect.pipeline.learning.model_file import add_reference
from affect.pipeline.learning.reference import (
    Contrast,
    Reference,
    Subspace,
    fit_subspace,
    person_scores,
    with_scores,
)
from affect.pipeline.records import BASE_MODEL
from make_base import CHANGES
from make_stn import FACES
from torch import Tensor
from train_ferplus import SURROUND, Faces

TRAINING_ROWS, CALIBRATION_ROWS = 4000, 1500
"""Faces of FER+."""
DRAWN = 100
COORDINATES = 512
"""Principal components of the features on which the classifier of the other kinds is trained."""
SHRINKAGE = 1e-3
PENALTY = 1e-3
RESIDUAL = 3.0
"""Weight of the residual among the coordinates."""
OWN_WEIGHT = 3.0
"""Weight of all training faces; each other kind has the weight 1."""


def ferplus_faces(predictor: Predictor, faces: Faces, count: int, *, changed: bool) -> Tensor:
    """Descriptions of `count` usable faces, each whole and cut around the face."""
    generator = torch.Generator().manual_seed(0)
    rows = faces.usable[torch.randperm(len(faces.usable), generator=generator)[:count]]
    size, parts = predictor.net.stn.crop, []
    for pixels in (faces.whole, faces.framed):
        for part in rows.split(64):
            grey = pixels[part, None].expand(-1, 3, -1, -1)
            crops = (
                augment(grey, size, CHANGES, generator, surround=SURROUND)
                if changed
                else crop_centre(grey, size, surround=SURROUND)
            )
            parts.append(kinds.encode_crops(predictor, crops))
    return kinds.joined(parts).description


def fit_contrast(subspace: Subspace, own: Sequence[Tensor], others: Sequence[Tensor]) -> Contrast:
    """Multinomial logistic regression of training faces against c other kinds, on the main directions of the
    descriptions of training faces and on the residual. Each set has the same weight in `own`."""
    mean = torch.stack([rows.mean(0) for rows in own]).mean(0)
    covariance = torch.stack([(rows - mean).T @ (rows - mean) / len(rows) for rows in own]).mean(0)
    spread, directions = torch.linalg.eigh(covariance)
    spread, directions = spread.flip(0)[:COORDINATES], directions.flip(1)[:, :COORDINATES]
    whiten = directions / (spread + SHRINKAGE * spread[0]).sqrt()
    centre = torch.cat([subspace.residual(rows) for rows in own]).mean()

    def inputs(rows: Tensor) -> Tensor:
        return torch.cat(((rows - mean) @ whiten, RESIDUAL * (subspace.residual(rows) - centre)[:, None]), 1)

    sets = [inputs(rows) for rows in (*own, *others)]
    kind = torch.cat([torch.full((len(it),), max(0, n - len(own) + 1)) for n, it in enumerate(sets)])
    share = [OWN_WEIGHT / len(own)] * len(own) + [1.0] * len(others)
    weight = torch.cat([torch.full((len(it),), own_share / len(it)) for it, own_share in zip(sets, share, strict=True)])
    weight, rows = weight / weight.sum(), torch.cat(sets)
    matrix = torch.zeros(rows.shape[1], len(others) + 1, requires_grad=True)
    bias = torch.zeros(len(others) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([matrix, bias], max_iter=80, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (F.cross_entropy(rows @ matrix + bias, kind, reduction="none") * weight).sum()
        loss = loss + PENALTY * matrix.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = (matrix - matrix[:, :1]).detach()[:, 1:]
    direction, slope = (whiten @ found[:-1]).T.contiguous(), RESIDUAL * found[-1]
    return Contrast(direction, slope, (bias - bias[0]).detach()[1:] - centre * slope - direction @ mean)


def fit(predictor: Predictor, ferplus: Path, pictures: Path, detector: Path | None, folder: Path) -> Reference:
    """The reference of the model of a predictor."""

    def faces_of(usage: fer.Usage, count: int, *, changed: bool) -> Tensor:
        return ferplus_faces(predictor, Faces(ferplus, usage, detector, folder), count, changed=changed)

    rng = np.random.default_rng(0)
    real = [kinds.real_faces(predictor, pictures, "train", it).description for it in (None, rng)]
    crowd = kinds.crowd_faces(predictor, pictures, "train", "face").description
    own = [faces_of("Training", TRAINING_ROWS, changed=True), torch.cat(real), crowd]
    others = [kinds.crowd_faces(predictor, pictures, "train", "masked").description]
    others.append(kinds.joined(list(kinds.no_people(predictor, pictures, "train").values())).description)
    others.append(kinds.joined(kinds.drawn_people(predictor, folder / "drawn", "train", DRAWN)).description)
    others += [it.description for it in kinds.filtered_faces(predictor, pictures, "train").values()]
    subspace = fit_subspace(own[:2])
    reference = Reference(subspace, fit_contrast(subspace, own, others), np.zeros(1), 1)
    held_out = [
        faces_of("PublicTest", CALIBRATION_ROWS, changed=False),
        *(kinds.real_faces(predictor, pictures, "calibration", it).description for it in (None, rng)),
    ]
    for name, features in zip(("PublicTest", "real", "real, changed"), held_out, strict=True):
        print(f"{name}: {len(features)} faces, 99th percentile {reference.raw(features).quantile(0.99):.2f}")
    return with_scores(reference, person_scores(reference, list(torch.cat(held_out)[:, None])))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferplus", type=Path)
    parser.add_argument("--faces", type=Path, default=FACES)
    parser.add_argument("--model", type=Path, default=BASE_MODEL)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for boxes and drawings; default: a temporary folder")
    options = parser.parse_args()
    predictor = Predictor(options.model, settings_for(options.model, ["runtime.device=cpu"]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reference = fit(predictor, options.ferplus, options.faces, options.detector, folder)
    add_reference(options.model, reference)
    print(f"{options.model}: compared with {reference.people} faces that were held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
