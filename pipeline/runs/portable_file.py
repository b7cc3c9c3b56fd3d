"""Networks written as ONNX and as torch.export's .pt2, and the former run by onnxruntime."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...models.portable import OPSET
from ..errors import MissingExtraError
from ..storage.atomic import temporary_folder

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def need_onnx() -> None:
    """Raises MissingExtraError if a package that the ONNX export needs is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"the ONNX export needs {', '.join(missing)}, not installed here"
        raise MissingExtraError(problem, f"Run: pip install {' '.join(missing)}")


def write_onnx(
    path: Path,
    module: nn.Module,
    example: Sequence[Tensor],
    axes: Sequence[dict[int, str]],
    names: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Writes one ONNX file with its weights. axes: of each input, the names of the axes that may have any length."""
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(), tuple(example), dynamo=True, verbose=False, opset_version=OPSET, external_data=False,
            input_names=list(names), output_names=list(outputs), dynamic_shapes=_dynamic(axes),
        )  # fmt: skip
        program.save(str(path), external_data=False)


def write_pt2(path: Path, module: nn.Module, example: Sequence[Tensor], axes: Sequence[dict[int, str]]) -> None:
    """Writes a file for torch.export.load(path).module()."""
    with _quiet():
        program = torch.export.export(module.eval(), tuple(example), dynamic_shapes=_dynamic(axes))
        torch.export.save(program, str(path))


class OnnxModel:
    """An ONNX file on the CPU, with as many threads as torch has. Called with arrays in the order of its inputs."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [node.name for node in self._session.get_inputs()]

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        found = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return [np.asarray(it) for it in found]


class Pt2Model:
    """A .pt2 file on the CPU. Called with arrays in the order of its inputs."""

    def __init__(self, path: Path) -> None:
        with _quiet():
            self._module = torch.export.load(str(path)).module()

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            return [it.numpy() for it in self._module(*map(torch.from_numpy, inputs))]


def _dynamic(axes: Sequence[dict[int, str]]) -> tuple[dict[int, Any], ...]:
    named = {name: torch.export.Dim(name, min=1) for places in axes for name in places.values()}
    return tuple({axis: named[name] for axis, name in places.items()} for places in axes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings about the exporter itself, and its output on stdout, which is for data."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A temporary folder in `folder` for unfinished files. It is removed at the end with its content."""
    with temporary_folder(folder, "export") as made:
        yield made
