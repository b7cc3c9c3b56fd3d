"""A copy of a picture with the values drawn over it."""

import io
from pathlib import Path

from PIL import Image

from ..inference.image_prediction import ImagePrediction
from ..inference.trace import Moment
from ..ingest.pictures import read_picture
from ..storage.atomic import write_bytes
from .overlay import Overlay


def write_overlay_picture(path: Path, prediction: ImagePrediction) -> None:
    """Writes a PNG, at most 1280 pixels wide, of the predicted picture. Raises PictureError, WorkError."""
    assert prediction.source is not None
    picture = read_picture(prediction.source)
    moment = Moment(
        0, 0.0, prediction.face, prediction.seen, prediction.valence, prediction.arousal, prediction.box or (0.0,) * 4
    )
    shown = Overlay(picture.shape[1], picture.shape[0]).draw(picture, [moment])
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    write_bytes(path, file.getvalue(), "another --out")
