"""All errors that affect raises on purpose.

AffectError               exit code 1; one line: what was found, what was allowed, the remedy
├── ConfigError           a setting that is unknown or out of range
├── InputError            a file or folder the user named cannot be used
│   ├── CatalogError      the data folder as a whole
│   ├── AnnotationError   one annotation file
│   ├── BoxError          one box file
│   ├── FerplusError      one FER or FER+ file
│   ├── PictureError      one picture: unreadable, damaged or too large
│   └── VideoError        one video: unreadable, hung, crashed or damaged
├── AlignmentError        rows and frames too far apart
├── MissingStageError     an earlier stage has not run
├── ShardError            a shard that is damaged, or of another format
├── WeightsError          weights that do not fit, or are damaged
├── DeviceError           a requested device that does not exist
├── MissingExtraError     a package that only some commands need is not installed
├── ProcessError          this process cannot do it: forked too late, or at a limit of the system
└── WorkError             the work folder: not writable or full
    └── InUseError        another process is using the folder or its files
"""


class AffectError(Exception):
    """An error that the user can fix. problem: what is wrong. remedy: what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}. {remedy}".strip() if remedy else problem)

    def __reduce__(self) -> tuple[type["AffectError"], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class ConfigError(AffectError):
    """A setting that is unknown or out of range."""


class InputError(AffectError):
    """A file or folder the user named cannot be used."""


class CatalogError(InputError):
    """The data folder as a whole cannot be used."""


class AnnotationError(InputError):
    """One annotation file is malformed."""


class BoxError(InputError):
    """One box file is malformed."""


class FerplusError(InputError):
    """A FER or FER+ file is malformed."""


class PictureError(InputError):
    """One picture is unreadable, damaged or too large."""


class VideoError(InputError):
    """One video is unreadable, hung, crashed its decoder, or is damaged."""


class AlignmentError(AffectError):
    """Annotation rows and decoded frames are too far apart to be paired."""


class MissingStageError(AffectError):
    """An earlier stage has not run."""


class ShardError(AffectError):
    """A shard is damaged or of another format."""


class WeightsError(AffectError):
    """Weights do not fit the network, or their file is damaged."""


class DeviceError(AffectError):
    """The requested device does not exist."""


class MissingExtraError(AffectError):
    """A package that only some commands need is not installed."""


class ProcessError(AffectError):
    """This process cannot do it: it was forked too late, or is at a limit of the system."""


class WorkError(AffectError):
    """The work folder cannot be written or is full."""


class InUseError(WorkError):
    """Another process is using it."""
