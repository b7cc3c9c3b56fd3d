"""Makes the pictures of the docs from one video: `python tools/pictures.py VIDEO MODEL docs/images`."""

import sys
from pathlib import Path

import affect
import cv2
from affect.pipeline.visualization.overlay_video import render_frame


def main(video: Path, model: Path, out: Path) -> None:
    """Writes overlay.png, the overlay frame with the highest arousal, and trace.png."""
    trace = affect.load(model).predict(video, progress=True)
    out.mkdir(parents=True, exist_ok=True)
    moment = trace.summary()["liveliest"] or 0.0
    cv2.imwrite(str(out / "overlay.png"), render_frame([trace], moment)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    trace.save(out / "trace.png")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
