"""The backbone: both dialects against independent readings of their graphs, and the weights of each."""

import json
import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from affect.models.backbone import (
    CLASSES,
    Backbone,
    Dialect,
    ferplus_key,
    folded,
    from_metadata,
    load_ferplus_dag,
    load_imagenet,
    scratch,
)
from affect.models.vision import is_tested
from affect.pipeline.errors import WeightsError
from affect.pipeline.ingest import ferplus
from affect.tests.child import output
from affect.tests.programs.torch_compiler import import_with_untested_torch, use_after_import
from torch import Tensor
from torchvision.models import resnet50

DEPTHS = {2: 3, 3: 4, 4: 6, 5: 3}
MEAN = (131.0912, 103.8827, 91.4953)

pytestmark = pytest.mark.usefixtures("full_resnet")


def dag_weights(counters: bool = False) -> dict[str, Tensor]:
    """Random weights in the layout of resnet50_ferplus_dag.pth, from its description and not from our module."""
    generator = torch.Generator().manual_seed(4)
    state: dict[str, Tensor] = {}

    def conv(name: str, outputs: int, inputs: int, side: int) -> None:
        scale = (2.0 / (inputs * side * side)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=generator) * scale
        state[f"{name}_bn.weight"] = 0.4 + 0.4 * torch.rand(outputs, generator=generator)
        state[f"{name}_bn.bias"] = 0.2 * torch.randn(outputs, generator=generator)
        state[f"{name}_bn.running_mean"] = 0.2 * torch.randn(outputs, generator=generator)
        state[f"{name}_bn.running_var"] = 0.5 + torch.rand(outputs, generator=generator)
        if counters:
            state[f"{name}_bn.num_batches_tracked"] = torch.tensor(7)

    conv("conv1_7x7_s2", 64, 3, 7)
    inputs = 64
    for stage, depth in DEPTHS.items():
        width = 64 * 2 ** (stage - 2)
        for block in range(1, depth + 1):
            name = f"conv{stage}_{block}"
            conv(f"{name}_1x1_reduce", width, inputs, 1)
            conv(f"{name}_3x3", width, width, 3)
            conv(f"{name}_1x1_increase", 4 * width, width, 1)
            if block == 1:
                conv(f"{name}_1x1_proj", 4 * width, inputs, 1)
            inputs = 4 * width
    state["classifier.weight"] = torch.randn(8, 2048, 1, 1, generator=generator) * 0.05
    state["classifier.bias"] = torch.randn(8, generator=generator)
    return state


def read_dag(state: dict[str, Tensor], crop: Tensor) -> tuple[Tensor, Tensor]:
    """The graph of the file, read layer by layer."""

    def layer(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        x = F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)
        norm = [state[f"{name}_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm, training=False, eps=1e-5)

    x = crop - torch.tensor(MEAN).view(1, 3, 1, 1)
    x = layer(x, "conv1_7x7_s2", stride=2, padding=3).relu()
    x = F.max_pool2d(x, 3, stride=2, padding=0, ceil_mode=True)
    for stage, depth in DEPTHS.items():
        for block in range(1, depth + 1):
            name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
            y = layer(x, f"{name}_1x1_reduce", stride=stride).relu()
            y = layer(y, f"{name}_3x3", padding=1).relu()
            y = layer(y, f"{name}_1x1_increase")
            x = (y + (layer(x, f"{name}_1x1_proj", stride=stride) if block == 1 else x)).relu()
    pooled = F.avg_pool2d(x, 7, stride=1)
    logits = F.conv2d(pooled, state["classifier.weight"], state["classifier.bias"])
    return pooled[:, :, 0, 0], logits[:, :, 0, 0]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return dag_weights()


@pytest.fixture
def crops() -> Tensor:
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 255


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@pytest.mark.parametrize("counters", [False, True], ids=["as of 2018", "with counters"])
def test_the_ferplus_dialect_is_the_graph_of_the_file(tmp_path: Path, crops: Tensor, counters: bool) -> None:
    state = dag_weights(counters)
    torch.save(state, tmp_path / "dag.pth")
    backbone = load_ferplus_dag(tmp_path / "dag.pth").eval()
    with torch.inference_mode():
        features, logits = backbone(crops)
        expected_features, expected_logits = read_dag(state, crops)
    assert close(features, expected_features)
    assert close(logits, expected_logits)
    assert features.shape == (2, 2048)
    assert (backbone.dialect, backbone.classes) == ("ferplus", CLASSES)


def test_files_in_the_old_format_load(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "dag.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(
        load_ferplus_dag(tmp_path / "dag.pth").network.conv1.weight.detach(), weights["conv1_7x7_s2.weight"]
    )


def test_the_dialects_are_not_the_same_network(tmp_path: Path, weights: dict[str, Tensor], crops: Tensor) -> None:
    """The same weights in the wrong dialect give other features: what the metadata are there to prevent."""
    torch.save(weights, tmp_path / "dag.pth")
    right = load_ferplus_dag(tmp_path / "dag.pth").eval()
    wrong = Backbone("torchvision", right.classes, right.preprocessing).eval()
    wrong.load_state_dict(right.state_dict())
    with torch.inference_mode():
        assert (right.features(crops) - wrong.features(crops)).abs().max() > 0.01


def test_the_torchvision_dialect_is_torchvisions(crops: Tensor) -> None:
    backbone = Backbone("torchvision", tuple("abcd")).eval()
    oracle = resnet50(num_classes=4).eval()
    oracle.load_state_dict(backbone.network.state_dict())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = (crops / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(crops)[1], oracle(normal), atol=1e-5, rtol=1e-4)


def test_whole_numbers_and_floats_are_the_same_to_it() -> None:
    backbone = scratch().eval()
    crops = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(backbone.features(crops), backbone.features(crops.float()))


def test_each_key_of_the_file_has_its_place_and_only_one() -> None:
    ours = Backbone("ferplus").network.state_dict()
    theirs = [ferplus_key(name) for name in ours]
    assert len(set(theirs)) == len(theirs)
    assert set(theirs) == set(dag_weights(counters=True))
    assert ferplus_key("layer1.0.conv1.weight") == "conv2_1_1x1_reduce.weight"
    assert ferplus_key("layer4.2.bn3.running_var") == "conv5_3_1x1_increase_bn.running_var"
    assert ferplus_key("layer3.0.downsample.1.bias") == "conv4_1_1x1_proj_bn.bias"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("conv3_2_3x3_bn.bias"), "does not contain conv3_2_3x3_bn.bias"),
        (lambda state: state.update({"conv6.weight": torch.zeros(1)}), "has unknown conv6.weight"),
        (
            lambda state: state.update({"classifier.weight": torch.zeros(7, 2048, 1, 1)}),
            r"classifier.weight is \[7, 2048, 1, 1\], expected \[8, 2048, 1, 1\]",
        ),
        (
            lambda state: state.update({"conv1_7x7_s2.weight": torch.zeros(64, 3, 3, 3)}),
            r"conv1_7x7_s2.weight is \[64, 3, 3, 3\], expected \[64, 3, 7, 7\]",
        ),
        (lambda state: state.update({"conv1_7x7_s2.weight": 3}), "contains a dict, expected tensors"),
        (lambda state: [state.pop(key) for key in list(state)[:9]], "and 4 more"),
    ],
    ids=["missing", "unknown", "classes", "shape", "no tensor", "many"],
)
def test_what_does_not_fit_is_named(tmp_path: Path, weights: dict[str, Tensor], change, named: str) -> None:
    state = dict(weights)
    change(state)
    torch.save(state, tmp_path / "dag.pth")
    with pytest.raises(WeightsError, match=named) as caught:
        load_ferplus_dag(tmp_path / "dag.pth")
    assert "dag.pth" in caught.value.problem
    assert caught.value.remedy


class Payload:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "cut", "torchvision", "module", "hostile"])
def test_a_wrong_or_damaged_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Tensor], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    match kind:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("<html>404</html>")
        case "empty":
            path.touch()
        case "cut":
            torch.save(weights, path)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "torchvision":
            torch.save(resnet50().state_dict(), path)
        case "module":
            torch.save(torch.nn.Linear(2, 2), path)
        case "hostile":
            path.write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_ferplus_dag(path)
    assert not (tmp_path / "touched").exists()


def test_scratch_is_the_same_for_the_same_seed_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = scratch(seed=1), scratch(seed=1), scratch(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.network.conv1.weight, other.network.conv1.weight)


def test_metadata_rebuild_the_module() -> None:
    backbone = scratch("ferplus", 3, ("calm", "not calm")).eval()
    again = from_metadata(backbone.metadata()).eval()
    again.load_state_dict(backbone.state_dict())
    crops = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        assert torch.equal(again(crops)[1], backbone(crops)[1])
    assert again.metadata() == backbone.metadata()


@pytest.mark.parametrize("change", [{"dialect": "caffe"}, {"mean": [1, 2]}, {"classes": 3}, {"scale": "much"}])
def test_metadata_that_describe_no_backbone_are_refused(change: dict) -> None:
    with pytest.raises(WeightsError, match="does not describe a backbone"):
        from_metadata(scratch().metadata() | change)
    with pytest.raises(WeightsError, match="does not describe a backbone"):
        from_metadata({})


def test_imagenet_without_a_network_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(WeightsError, match="cannot download") as caught:
        load_imagenet()
    assert "scratch" in caught.value.remedy


def test_the_classes_are_those_of_the_votes() -> None:
    assert ferplus.CLASSES == CLASSES


@pytest.mark.parametrize("dialect", ["torchvision", "ferplus"])
def test_folding_the_norms_changes_no_feature(dialect: Dialect) -> None:
    torch.manual_seed(3)
    backbone = Backbone(dialect)
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    backbone.eval()
    crop = torch.rand(2, 3, 64, 64) * 255
    quick = folded(backbone)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())
    with torch.inference_mode():
        for ours, plain in zip(quick(crop), backbone(crop), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules()), "the original is left alone"


def test_torchs_compiler_is_imported_only_when_it_is_used() -> None:
    """Importing it takes as long as importing torch."""
    found = json.loads(output(use_after_import))
    assert found["imported at once"] == []
    assert found["aligned"] == [[[[1, 1], [1, 1]]]]
    assert found["compiled"] == 2
    assert found["supported"][0] == found["supported"][1]


def test_a_torch_that_was_not_tested_imports_its_compiler() -> None:
    """The replacement of torch's compiler is for the tested versions only."""
    assert is_tested("2.15.0+cu132")
    assert not any(is_tested(version) for version in ("2.14.1", "2.16.0", "3.15.0"))
    file, classes = output(import_with_untested_torch).splitlines()
    assert Path(file).name == "utils.py"  # the module itself, not its replacement
    assert classes == "1000"
