"""Runs a package for facial expressions on a video or on faces, in the environment that environment.py makes.

    python run_peer.py video fer VIDEO OUT.json [FRAMES]
    python run_peer.py faces FACES.npy OUT.npy

video: OUT has the number of frames and of frames with a result. Packages: fer, with its default face detector;
fer-mtcnn; facial-emotion-recognition. FRAMES: stop after so many frames. faces: uint8 [n, 48, 48]; OUT has the
probabilities of fer's network in full precision, float32 [n, 7]: angry, disgust, fear, happy, sad, surprise, neutral.
"""

import contextlib
import functools
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
NO_FACE = "No face detected"
"""Printed by facial-emotion-recognition."""


def video(package: str, path: str, out: str, frames: str = "0") -> None:
    import cv2

    look, source = LOOKS[package](), cv2.VideoCapture(path)
    seen = found = 0
    while not int(frames) or seen < int(frames):
        read, frame = source.read()
        if not read:
            break
        seen += 1
        found += look(frame)
    Path(out).write_text(json.dumps({"frames": seen, "found": found}), encoding="utf-8")


def faces(path: str, out: str) -> None:
    import cv2
    import numpy as np
    from fer.fer import FER  # pyright: ignore[reportMissingImports]

    pixels = np.stack([cv2.resize(face, (64, 64)) for face in np.load(path)]).astype(np.float32)
    network = FER(use_tflite=False)
    parts = np.array_split(2 * (pixels / 255 - 0.5), -(-len(pixels) // 128))
    np.save(out, np.concatenate([np.asarray(network._classify_emotions(part)) for part in parts]))


def fer() -> Callable[[Any], bool]:
    from fer.fer import FER  # pyright: ignore[reportMissingImports]

    detector = FER()
    return lambda frame: bool(detector.detect_emotions(frame))


def fer_mtcnn() -> Callable[[Any], bool]:
    import torch  # before TensorFlow: in the other order, both load LLVM and the process ends
    import torchvision
    from fer.fer import FER  # pyright: ignore[reportMissingImports]

    assert torch.__version__
    assert torchvision.__version__
    detector = FER(mtcnn=True)
    return lambda frame: bool(detector.detect_emotions(frame))


def facial_emotion_recognition() -> Callable[[Any], bool]:
    import torch
    from facial_emotion_recognition import EmotionRecognition  # pyright: ignore[reportMissingImports]

    torch.load = functools.partial(torch.load, map_location="cpu")  # its weights are of a GPU
    with contextlib.redirect_stdout(io.StringIO()):
        network = EmotionRecognition("cpu")

    def look(frame: Any) -> bool:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            network.recognise_emotion(frame)
        return NO_FACE not in printed.getvalue()

    return look


LOOKS = {"fer": fer, "fer-mtcnn": fer_mtcnn, "facial-emotion-recognition": facial_emotion_recognition}

if __name__ == "__main__":
    {"video": video, "faces": faces}[sys.argv[1]](*sys.argv[2:])
