"""affect: valence and arousal from video, frame by frame and clip by clip.

    import affect

    model = affect.load("work/train/default")
    trace = model.predict("talk.mp4")
    trace.valence, trace.arousal, trace.time

Heavy modules are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

from .pipeline.processes import limit_spinning
from .pipeline.version import __version__

if TYPE_CHECKING:
    from .pipeline.api.model import Model, load
    from .pipeline.api.trace import Trace
    from .pipeline.errors import AffectError
    from .pipeline.inference.image_prediction import ImagePrediction
    from .pipeline.inference.trace import Moment

__all__ = ["AffectError", "ImagePrediction", "Model", "Moment", "Trace", "__version__", "load"]

# OpenMP reads this when torch is loaded, and the caller may import torch next.
limit_spinning()

_MODULES = {
    "AffectError": ".pipeline.errors",
    "ImagePrediction": ".pipeline.inference.image_prediction",
    "Model": ".pipeline.api.model",
    "Moment": ".pipeline.inference.trace",
    "Trace": ".pipeline.api.trace",
    "load": ".pipeline.api.model",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
