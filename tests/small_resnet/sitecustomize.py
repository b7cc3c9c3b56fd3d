"""Makes ResNet-50 small in every Python process of the tests: one block in each stage, inner widths a quarter. It still
has 2,048 features and the names of its tensors. Python imports this module at its start, because conftest.py puts this
folder on PYTHONPATH.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

NAME = "affect.models.vision"


def small_resnet(weights: None = None, num_classes: int = 1000) -> Any:
    """In place of torchvision.models.resnet50."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=num_classes, width_per_group=16)


class Finder(MetaPathFinder):
    """Replaces `resnet50` in the one module through which affect imports it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec and spec.loader:
            execute: Any = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                vars(module)["resnet50"] = small_resnet

            spec.loader.exec_module = exec_module
        return spec


if NAME not in sys.modules:
    sys.meta_path.insert(0, Finder())
