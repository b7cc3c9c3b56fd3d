"""ResNet-50 in two variants ("dialects"), and their pretrained weights.

`torchvision`: stride 2 in the 3x3 convolution of a stage's first block, padded max-pool, RGB / 255 normalised with the
mean and deviation of ImageNet. `ferplus`: stride 2 in the 1x1 reduction, max-pool without padding in ceil mode, RGB
0..255 minus a mean. This is the graph of resnet50_ferplus_dag.pth (Albanie & Vedaldi's conversion of their FER+
network). A Backbone takes RGB in 0..255 and normalises it itself, so all callers have the same preprocessing.
"""

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..pipeline.errors import WeightsError
from .vision import ResNet50_Weights, resnet50

Dialect = Literal["torchvision", "ferplus"]

FEATURES = 2048
TEXTURE_GRID = 8
CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The classes of FER+, in the order of resnet50_ferplus_dag.pth."""

_STAGES = {"layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5}
_BLOCK = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase", "downsample.0": "1x1_proj"}
_NORM = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample.1": "downsample.0"}


class Preprocessing(NamedTuple):
    """(RGB * scale - mean) / std, for RGB in 0..255."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PREPROCESSING: dict[str, Preprocessing] = {
    "torchvision": Preprocessing(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "ferplus": Preprocessing(1.0, (131.0912, 103.8827, 91.4953), (1.0, 1.0, 1.0)),
}


class Backbone(nn.Module):
    """ResNet-50: from a crop in 0..255 to 2048 features and to the logits of `classes`.

    preprocessing: None for the preprocessing of the dialect.
    """

    def __init__(
        self,
        dialect: Dialect = "torchvision",
        classes: tuple[str, ...] = CLASSES,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if dialect not in get_args(Dialect):
            raise ValueError(f"dialect is {dialect!r}, expected one of {', '.join(get_args(Dialect))}")
        super().__init__()
        self.dialect: Dialect = dialect
        self.classes = tuple(classes)
        self.preprocessing = preprocessing or PREPROCESSING[dialect]
        self.network = resnet50(weights=None, num_classes=len(self.classes))
        if dialect == "ferplus":
            self.network.maxpool = nn.MaxPool2d(3, stride=2, padding=0, ceil_mode=True)
            for name in ("layer2", "layer3", "layer4"):
                first = getattr(self.network, name)[0]
                first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
        scale, mean, std = self.preprocessing
        gain = torch.tensor([scale / s for s in std])
        offset = torch.tensor([m / s for m, s in zip(mean, std, strict=True)])
        self.gain: Tensor
        self.offset: Tensor
        self.register_buffer("gain", gain.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.view(1, 3, 1, 1), persistent=False)

    def features(self, crop: Tensor) -> Tensor:
        """crop: uint8 or float [n, 3, h, w], RGB in 0..255. Returns [n, 2048], each at least 0."""
        return self._run(crop)[0]

    def read(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(features [n, 2048], logits [n, classes], texture [n, 512]).

        texture: mean and standard deviation of each channel of the first stage, without a gradient. They describe how a
        picture is made (edges, shading, noise), and hardly the expression. A grid of about 8 x 8 places is enough: all
        places would take up to a fifth of the time of the network.
        """
        features, early = self._run(crop)
        steps = [max(1, side // TEXTURE_GRID) for side in early.shape[2:]]
        places = early.detach()[:, :, :: steps[0], :: steps[1]].permute(0, 2, 3, 1).flatten(1, 2).float()
        mean = places.mean(1)
        deviation = (places.square().mean(1) - mean.square()).clamp(min=0).sqrt()
        return features, self.network.fc(features), torch.cat((mean, deviation), 1)

    def _run(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """(features, output of the first stage)."""
        net = self.network
        x = (crop.to(self.gain.dtype) * self.gain - self.offset).contiguous(memory_format=torch.channels_last)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        early = net.layer1(x)
        x = net.layer4(net.layer3(net.layer2(early)))
        return x.mean((2, 3), dtype=torch.float32), early

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """(features [n, 2048], logits [n, classes])."""
        features = self.features(crop)
        return features, self.network.fc(features)

    def metadata(self) -> dict[str, Any]:
        """The input of `from_metadata`, as JSON."""
        scale, mean, std = self.preprocessing
        return {
            "architecture": "resnet50",
            "dialect": self.dialect,
            "classes": list(self.classes),
            "input": "RGB 0..255",
            "scale": scale,
            "mean": list(mean),
            "std": list(std),
        }


def folded(backbone: Backbone) -> Backbone:
    """A faster copy for inference: batch norms are folded into the convolutions before them, weights are channels_last.
    The features are the same up to rounding (relative error 1e-5)."""
    copied = copy.deepcopy(backbone).eval()
    for module in list(copied.network.modules()):
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):  # "0", "1": a downsample
            before, after = getattr(module, conv, None), getattr(module, norm, None)
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(before, after))
                setattr(module, norm, nn.Identity())
    return copied.to(memory_format=torch.channels_last)


def from_metadata(metadata: Mapping[str, Any]) -> Backbone:
    """A backbone with these metadata and random weights. Raises WeightsError."""
    try:
        preprocessing = Preprocessing(float(metadata["scale"]), _triple(metadata["mean"]), _triple(metadata["std"]))
        return Backbone(metadata["dialect"], tuple(metadata["classes"]), preprocessing)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the metadata of the weights does not describe a backbone: {error}",
            "Write the weights again with `affect pretrain backbone` or `affect adapt`.",
        ) from error


def scratch(dialect: Dialect = "torchvision", seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Backbone:
    """Random weights from a seed. Residual branches start at zero, so that each block starts as the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = Backbone(dialect, classes)
    for name, parameter in backbone.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.zeros_(parameter)
    return backbone


def load_imagenet(classes: tuple[str, ...] = CLASSES) -> Backbone:
    """torchvision's ImageNet weights (IMAGENET1K_V2), downloaded once, and a new classifier. Raises WeightsError."""
    weights = ResNet50_Weights.IMAGENET1K_V2
    try:
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise WeightsError(
            f"cannot download {weights.url} ({error})",
            "Put the file in ~/.cache/torch/hub/checkpoints, set backbone.weights to the path of "
            "resnet50_ferplus_dag.pth, or start from scratch.",
        ) from error
    backbone = scratch("torchvision", 0, classes)
    own = backbone.network.state_dict()
    backbone.network.load_state_dict({**state, "fc.weight": own["fc.weight"], "fc.bias": own["fc.bias"]})
    return backbone


def load_ferplus_dag(path: Path) -> Backbone:
    """The network of resnet50_ferplus_dag.pth. Raises WeightsError if a key is missing, unknown or misshapen."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError, BadZipFile) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({_brief(error)})", _REMEDY) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: contains a {type(state).__name__}, expected tensors by name", _REMEDY)
    backbone = Backbone("ferplus", CLASSES)
    own = backbone.network.state_dict()
    mapping = {name: ferplus_key(name) for name in own}
    counted = {theirs for theirs in mapping.values() if theirs.endswith("num_batches_tracked")}
    missing = sorted(set(mapping.values()) - set(state) - counted)  # torch wrote no counters in 2018
    unexpected = sorted(set(state) - set(mapping.values()))
    misshapen = [
        f"{theirs} is {list(state[theirs].shape)}, expected {list(_their_shape(name, own[name]))}"
        for name, theirs in mapping.items()
        if theirs in state and state[theirs].shape != _their_shape(name, own[name])
    ]
    faults = [
        f"{word} {_list(names)}"
        for word, names in (("does not contain", missing), ("has unknown", unexpected))
        if names
    ]
    if misshapen:
        faults.append(_list(misshapen))
    if faults:
        raise WeightsError(f"{path}: {'; '.join(faults)}", _REMEDY)
    mapped = {name: state[theirs].reshape(own[name].shape) for name, theirs in mapping.items() if theirs in state}
    backbone.network.load_state_dict({**own, **mapped})
    return backbone


def ferplus_key(name: str) -> str:
    """From the name of a tensor in torchvision's ResNet-50 (layer1.0.conv1.weight) to its name in
    resnet50_ferplus_dag.pth (conv2_1_1x1_reduce.weight)."""
    module, _, tensor = name.rpartition(".")
    if module == "fc":
        return f"classifier.{tensor}"
    if module in ("conv1", "bn1"):
        return f"conv1_7x7_s2{'_bn' if module == 'bn1' else ''}.{tensor}"
    layer, block, inner = module.split(".", 2)
    part = _BLOCK[_NORM.get(inner, inner)]
    return f"conv{_STAGES[layer]}_{int(block) + 1}_{part}{'_bn' if inner in _NORM else ''}.{tensor}"


_REMEDY = "Download resnet50_ferplus_dag.pth again, or set backbone.weights to another file."


def _their_shape(name: str, tensor: Tensor) -> torch.Size:
    """The classifier of the file is a 1x1 convolution."""
    return torch.Size((*tensor.shape, 1, 1)) if name == "fc.weight" else tensor.shape


def _triple(values: Any) -> tuple[float, float, float]:
    r, g, b = (float(value) for value in values)
    return r, g, b


def _list(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
