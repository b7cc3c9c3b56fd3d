"""The video that a subject belongs to, by name, and the video that may be meant if there is none."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..records import Side, Video
from .walk import blurred, composed, suffixes_in_words

SIDES: tuple[Side, ...] = ("left", "right")


def video_of(subject: str, videos: Mapping[str, object]) -> tuple[str | None, Side | None]:
    """The name of the subject's video among `videos`, and the side of the picture that shows the subject."""
    if subject in videos:
        return subject, None
    for side in SIDES:
        video = subject.removesuffix(f"_{side}")
        if video != subject and video in videos:
            return video, side
    return None, None


class SimilarVideos:
    """Suggests a file for a subject without a video. Reads all names only once: thousands of videos may be missing.

    others: files that may be videos with an unknown suffix.
    """

    def __init__(self, root: Path, videos: Mapping[str, Video], others: Sequence[Path]) -> None:
        self._root, self._videos, self._paths = root, videos, others

    def suggestion(self, subject: str) -> tuple[str, str]:
        """The file that may be the missing video of a subject, to append to a message, and the remedy."""
        name = self._similar_videos.get(blurred(subject))
        if name is not None:
            side = next((f"_{side}" for side in SIDES if blurred(subject) == blurred(f"{name}_{side}")), "")
            return (
                f", but {self._videos[name].path.relative_to(self._root)} is similar",
                f"Names must be equal, including upper and lower case: rename the annotation to {name}{side}.txt, "
                "or rename the video.",
            )
        other, _ = video_of(subject, self._others)
        other = other or self._similar_others.get(blurred(subject))
        if other is not None:
            path = self._others[other]
            suffix = f"{path.suffix} is not a known video suffix" if path.suffix else "it has no suffix"
            return (
                f", but {path.relative_to(self._root)} exists: {suffix}",
                f"If it is a video, rename or convert it. Known suffixes: {suffixes_in_words()}.",
            )
        return "", "Put the video below the data folder."

    @cached_property
    def _others(self) -> dict[str, Path]:
        return {composed(path.stem): path for path in reversed(self._paths)}

    @cached_property
    def _similar_videos(self) -> dict[str, str]:
        return _by_blurred_name(self._videos)

    @cached_property
    def _similar_others(self) -> dict[str, str]:
        return _by_blurred_name(self._others)


def _by_blurred_name(names: Iterable[str]) -> dict[str, str]:
    """The first name for each blurred name, with and without the suffix of a side."""
    found: dict[str, str] = {}
    for name in names:
        for variant in (name, *(f"{name}_{side}" for side in SIDES)):
            found.setdefault(blurred(variant), name)
    return found
