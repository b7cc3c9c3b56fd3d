"""What importing affect does to torch's compiler."""

import json
import sys


def use_after_import() -> None:
    """Imports a backbone, then uses roi_align and the compiler. Prints the results as JSON."""
    import affect.models.backbone  # noqa: F401

    at_once = [name for name in sys.modules if name.startswith("torch._dynamo")]
    import torch
    import torchvision.ops

    torch.use_deterministic_algorithms(True)
    aligned = torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
    handed_on = vars(sys.modules["torchvision.ops.roi_align"])["is_compile_supported"]("cpu")

    def add_one(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    compiled = torch.compile(add_one, backend="eager")(torch.ones(1))
    from torch._dynamo.utils import is_compile_supported

    found = {
        "imported at once": at_once,
        "aligned": aligned.tolist(),
        "compiled": compiled.item(),
        "supported": [handed_on, is_compile_supported("cpu")],
    }
    print(json.dumps(found))


def import_with_untested_torch() -> None:
    """Prints the file of torch's compiler and the number of classes of a ResNet-50."""
    import torch

    torch.__version__ = type(torch.__version__)("2.99.0")
    from affect.models.vision import resnet50

    print(sys.modules["torch._dynamo.utils"].__file__)
    print(resnet50(weights=None).fc.out_features)
