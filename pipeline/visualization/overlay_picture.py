"""A copy of a picture with the values drawn over it."""

import io
from pathlib import Path

from PIL import Image

from ..inference.image_prediction import ImagePrediction
from ..inference.trace import Moment
from ..ingest.pictures import read_picture
from ..storage.atomic import write_bytes
from .overlay import Overlay

MIN_WIDTH = 640
"""Narrower pictures are enlarged, so that the texts have room."""


def write_overlay_picture(path: Path, prediction: ImagePrediction) -> None:
    """Writes a PNG, 640 to 1280 pixels wide, of the predicted picture. Raises PictureError, WorkError."""
    assert prediction.source is not None
    picture = read_picture(prediction.source)
    box = prediction.box or (0.0, 0.0, 0.0, 0.0)  # not drawn without a face
    ends = [] if prediction.interval is None else [end for pair in prediction.interval for end in pair]
    value = (prediction.valence, prediction.arousal)
    moment = Moment(0, 0.0, prediction.face, prediction.seen, *value, box, 0, *ends)
    height, width = picture.shape[:2]
    scale = max(1.0, MIN_WIDTH / width)
    shown = Overlay(width, height, shape=(round(width * scale), round(height * scale))).draw(picture, [moment])
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG")
    write_bytes(path, file.getvalue(), "another --out")
