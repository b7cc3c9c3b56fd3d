"""torchvision's ResNet-50 and box operations, without torch's compiler.

torchvision imports the compiler for one function of its `roi_align`, which affect does not call. The compiler takes as
long to import as torch itself. So an empty module replaces `torch._dynamo.utils` while torchvision is imported. It
imports the compiler on first use.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_UTILS = "torch._dynamo.utils"
TESTED = ((2, 15), (2, 16))
"""The versions of torch with which the replacement is tested: from the first to before the second. Other versions
import the compiler."""


class _LazyUtils(ModuleType):
    """`torch._dynamo.utils`, imported on first use."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect asks every module for such names
            raise AttributeError(name)
        if sys.modules.get(_UTILS) is self:
            del sys.modules[_UTILS]
        return getattr(importlib.import_module(_UTILS), name)

    def is_compile_supported(self, device: str) -> bool:
        return self.__getattr__("is_compile_supported")(device)


def is_tested(version: str) -> bool:
    """Whether a version of torch ("2.15.0+cu132") is in the tested range."""
    major, minor = version.split(".")[:2]
    return TESTED[0] <= (int(major), int(minor)) < TESTED[1]


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _UTILS in sys.modules or "torchvision" in sys.modules or not is_tested(torch.__version__):
        yield
        return
    sys.modules[_UTILS] = _LazyUtils(_UTILS)
    try:
        yield
    finally:
        if isinstance(sys.modules.get(_UTILS), _LazyUtils):
            del sys.modules[_UTILS]


with _without_compiler():
    from torchvision.models import ResNet50_Weights, resnet50
    from torchvision.ops import batched_nms, generalized_box_iou_loss

__all__ = ["ResNet50_Weights", "batched_nms", "generalized_box_iou_loss", "resnet50"]
