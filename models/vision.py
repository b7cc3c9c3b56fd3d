"""torchvision's ResNet-50, without torch's compiler.

torchvision imports the compiler for one small function of its `roi_align`, which nothing here calls, and that takes as
long as torch itself. So while torchvision is imported, a stand-in has the place of `torch._dynamo.utils`; whoever wants
something from it gets that from the compiler, imported then.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_UTILS = "torch._dynamo.utils"


class _Later(ModuleType):
    """`torch._dynamo.utils`, imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of every module, by those who look for something else
            raise AttributeError(name)
        if sys.modules.get(_UTILS) is self:
            del sys.modules[_UTILS]
        return getattr(importlib.import_module(_UTILS), name)

    def is_compile_supported(self, device: str) -> bool:
        return self.__getattr__("is_compile_supported")(device)


if _UTILS in sys.modules or "torchvision" in sys.modules:
    from torchvision.models import ResNet50_Weights, resnet50
else:
    sys.modules[_UTILS] = _Later(_UTILS)
    try:
        from torchvision.models import ResNet50_Weights, resnet50
    finally:
        if isinstance(sys.modules.get(_UTILS), _Later):
            del sys.modules[_UTILS]

__all__ = ["ResNet50_Weights", "resnet50"]
