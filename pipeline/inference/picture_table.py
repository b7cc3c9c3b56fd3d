"""The table of all pictures of a call, and the record that shows whether it is up to date."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.schema import Config
from ..errors import InputError
from ..faults import one_input
from ..ingest.pictures import read_picture
from ..names import name_bytes, shorten_name
from ..progress import Reporter
from ..records import Problem
from ..storage.fingerprint import fingerprint, source_digest
from .image_prediction import ImagePrediction
from .inputs import Picture
from .outputs import FACTS, PICTURE_OVERLAY, Recorded, claimed, recorded, remove_others
from .tables import picture_file
from .trace import signed
from .unlike import judge

if TYPE_CHECKING:
    from .predictor import Predictor

PICTURES = "pictures"
"""Name of the output files, and in the record the number of pictures. Records of videos do not have this key."""
VERSION = 1
MANY_PICTURES = 12
"""From this number on, there is no line for each picture."""


@dataclass(frozen=True)
class PictureTable:
    """Writes the table of pictures to `out`, and with `draw` an overlay of each picture.

    load: returns the model; called only if a picture must be predicted. digests: of the models. classes: names of the
    emotions to predict. draw: writes the overlay of a prediction to a path. intervals: settings of the intervals that
    the table depends on.
    """

    config: Config
    out: Path
    load: "Callable[[], Predictor]"
    digests: Sequence[str]
    classes: Sequence[str]
    format: str
    draw: Callable[[Path, ImagePrediction], None] | None = None
    intervals: Mapping[str, Any] = field(default_factory=dict)

    def make(
        self, pictures: Sequence[Picture], failed: list[Problem], reporter: Reporter
    ) -> tuple[Recorded | None, bool]:
        """Returns what is recorded of the table (None if no picture could be read) and whether it was made now.

        A picture that cannot be read is added to `failed`. An earlier table is replaced. Raises WorkError, and
        InputError if a video has files with the name of the table.
        """
        digests: dict[Picture, str] = {}
        for picture in pictures:
            with one_input(str(picture.path), failed):
                digests[picture] = source_digest(picture.path)
        with claimed(self.out, PICTURES, self._record, wait=True) as name:
            known = recorded(self.out, PICTURES)
            if name != PICTURES:
                of = f" of {known.source}" if known else ""
                problem = f"{self.out / PICTURES}.{self.format}: is the table of a video{of}"
                raise InputError(problem, "Choose another --out.")
            overlays = self._overlays(list(digests)) if self.draw else {}
            complete = all((self.out / overlay).is_file() for overlay in overlays.values())
            if known and known.key == self._key(digests) and known.has([f".{self.format}"]) and complete:
                return known, False
            predictions = self._predict(list(digests), failed, reporter)
            if not predictions:
                return None, False
            made = {picture: digests[picture] for picture in predictions}
            record = self._write(predictions, overlays, self._key(made), known, failed)
        for line in summary_lines(list(predictions.values())):
            reporter.info(line)
        return record, True

    @property
    def _record(self) -> Path:
        """The file of the record, which the record names as its source."""
        return (self.out / f"{PICTURES}{FACTS}").resolve()

    def _key(self, digests: Mapping[Picture, str]) -> str:
        return fingerprint(
            version=VERSION, model=self.digests, threshold=self.config.predict.face_threshold, **self.intervals,
            precision=self.config.runtime.precision, emotions=list(self.classes),
            pictures=[(picture.name, digest) for picture, digest in digests.items()],
        )  # fmt: skip

    def _predict(
        self, pictures: Sequence[Picture], failed: list[Problem], reporter: Reporter
    ) -> dict[Picture, ImagePrediction]:
        from .pictures import SquarePicture, predict_pictures, square_picture

        predictor = self.load()
        found: dict[Picture, ImagePrediction] = {}
        batch: dict[Picture, SquarePicture] = {}

        def predict_batch() -> None:
            predictions = predict_pictures(predictor, list(batch.values()), self.classes) if batch else []
            found.update(zip(batch, predictions, strict=True))
            batch.clear()

        with reporter.progress(f"predict {PICTURES}", len(pictures), PICTURES) as tracker:
            for picture in pictures:
                with one_input(str(picture.path), failed):
                    pixels = read_picture(picture.path)
                    batch[picture] = square_picture(pixels, predictor.size, picture.name, picture.path)
                if len(batch) == self.config.features.batch:
                    predict_batch()
                tracker.advance()
            predict_batch()
        return found

    def _write(
        self,
        predictions: Mapping[Picture, ImagePrediction],
        overlays: Mapping[Picture, str],
        key: str,
        old: Recorded | None,
        failed: list[Problem],
    ) -> Recorded:
        """Writes all files, the record last. old: the record of an earlier table. Its files are removed, unless they
        have the same values."""
        still_valid = old.suffixes if old is not None and old.key == key else ()
        remove_others(self.out, PICTURES, old, still_valid, mark=True)
        drawn = set(old.facts.get("overlays", ())) if old is not None else set()
        if not still_valid:
            for overlay in drawn:
                (self.out / overlay).unlink(missing_ok=True)
            drawn = set()
        suffix = f".{self.format}"
        picture_file(self.out / f"{PICTURES}{suffix}", list(predictions.values()), self.format)
        for picture, prediction in predictions.items() if self.draw else ():
            with one_input(str(picture.path), failed, part="its row is written, but not the overlay"):
                assert self.draw is not None
                self.draw(self.out / overlays[picture], prediction)
                drawn.add(overlays[picture])
        faces = sum(prediction.seen for prediction in predictions.values())
        facts = {PICTURES: len(predictions), "faces": faces, "overlays": sorted(drawn)}
        facts |= self._unlike(list(predictions.values()))
        suffixes = tuple(dict.fromkeys((*still_valid, suffix)))
        environment = self.load().environment()
        record = Recorded(self.out / PICTURES, key, self._record, facts, suffixes, environment)
        record.save()
        return record

    def _unlike(self, predictions: Sequence[ImagePrediction]) -> dict[str, Any]:
        """How far the faces of all pictures together lie from the training data; empty without a reference."""
        known = [it for it in predictions if it.distance is not None]
        distance = np.array([it.distance for it in known], np.float32)
        found = judge(self.load().reference, distance, np.array([it.seen for it in known], bool))
        return {} if found is None else found.facts()

    def _overlays(self, pictures: Sequence[Picture]) -> dict[Picture, str]:
        """The file name of each overlay: the name of the picture, with _ for each slash, and a number if needed."""
        names: dict[Picture, str] = {}
        taken: set[str] = set()
        limit = name_bytes(self.out)
        for picture in pictures:
            flat = picture.name.strip("/").replace("/", "_")
            count, name = 1, shorten_name(flat, len(PICTURE_OVERLAY), limit)
            while name.casefold() in taken:
                count += 1
                name = f"{shorten_name(flat, len(f'-{count}{PICTURE_OVERLAY}'), limit)}-{count}"
            taken.add(name.casefold())
            names[picture] = f"{name}{PICTURE_OVERLAY}"
        return names


def summary_lines(predictions: Sequence[ImagePrediction]) -> list[str]:
    """The lines of a summary for the terminal."""
    faces = sum(prediction.seen for prediction in predictions)
    lines = [f"{PICTURES}: {len(predictions):,} pictures, a face in {faces:,} of them"]
    for prediction in predictions if len(predictions) < MANY_PICTURES else ():
        values = f"valence {signed(prediction.valence)}, arousal {signed(prediction.arousal)}"
        lines.append(f"  {prediction.name}  {values if prediction.seen else 'no face'}")
    return lines
