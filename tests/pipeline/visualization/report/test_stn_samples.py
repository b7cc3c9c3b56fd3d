"""The IoU of the report is the IoU of training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from affect.models.theta import box_iou, theta_from_corners
from affect.pipeline.ingest.boxes import write_boxes
from affect.pipeline.progress import Reporter
from affect.pipeline.records import Boxes
from affect.pipeline.runs.splits import Cached
from affect.pipeline.storage.shard import FEATURES
from affect.pipeline.storage.shard_writer import ShardWriter
from affect.pipeline.visualization.report.stn_samples import measure

WIDTH, HEIGHT = 640, 480


def rolled(degrees: float) -> list[list[float]]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [[0.5 * cos, -0.5 * sin, 0.1], [0.5 * sin, 0.5 * cos, -0.2]]


@pytest.mark.parametrize("degrees", [0, 20, 45])
def test_the_iou_of_a_rolled_box_is_that_of_training(tmp_path: Path, degrees: float) -> None:
    theta = np.array([rolled(degrees)] * 3, np.float32)
    corners = np.array([[160, 60, 500, 320], [192, 96, 512, 288], [10, 10, 60, 60]], np.float32)
    shard = tmp_path / "a.h5"
    with ShardWriter(shard, FEATURES, "fingerprint", {}, "a", {"width": WIDTH, "height": HEIGHT}) as writer:
        writer.append(index=np.arange(3), pts=np.arange(3) / 25, theta=theta)
    boxes = tmp_path / "a.csv"
    write_boxes(boxes, Boxes(np.arange(3), corners))
    cached = Cached("a", shard, "validation", "a", "fingerprint", "encoder", ())

    fits, problems = measure([cached], {"a": boxes}, Reporter(quiet=True))

    assert not problems
    expected = box_iou(torch.from_numpy(theta), theta_from_corners(torch.from_numpy(corners), WIDTH, HEIGHT))
    np.testing.assert_allclose(fits[0].iou, expected.numpy(), atol=1e-5)
