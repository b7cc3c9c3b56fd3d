"""Data folders for tests."""

from collections.abc import Callable, Mapping
from pathlib import Path


def write_training_data(root: Path, frames: Mapping[str, int], write_video: Callable[[Path, int], object]) -> Path:
    """A data folder with one video of so many frames for each name, annotated as training data. write_video: writes a
    video of so many frames."""
    (root / "videos").mkdir(parents=True)
    labels = root / "annotations" / "VA_Set" / "Train_Set"
    labels.mkdir(parents=True)
    for name, count in frames.items():
        write_video(root / "videos" / f"{name}.mp4", count)
        (labels / f"{name}.txt").write_text("valence,arousal\n" + "0.1,-0.2\n" * count)
    return root
