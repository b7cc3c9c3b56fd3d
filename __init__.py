"""affect: valence and arousal from video, frame by frame and clip by clip.

    import affect

    model = affect.load("work/train/default")
    trace = model.predict("talk.mp4")
    trace.valence, trace.arousal, trace.time

What is heavy is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline.errors import AffectError as AffectError
    from .pipeline.stages.model import Model as Model
    from .pipeline.stages.model import load as load
    from .pipeline.stages.trace import Moment as Moment
    from .pipeline.stages.trace import Trace as Trace

__version__ = "0.1.0"
__all__ = ["AffectError", "Model", "Moment", "Trace", "__version__", "load"]

_HOMES = {
    "AffectError": ".pipeline.errors",
    "Model": ".pipeline.stages.model",
    "Moment": ".pipeline.stages.trace",
    "Trace": ".pipeline.stages.trace",
    "load": ".pipeline.stages.model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
