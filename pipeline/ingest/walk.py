"""Lists files below a folder, recognises videos, and reports what cannot be read.

`affect audit` and `affect predict` use the same rules: links are followed; hidden files and files of file managers are
skipped; other skipped files are reported.
"""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from ..records import Problem

COMMON_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")
"""Preferred suffixes if several videos have the same stem."""
VIDEO_SUFFIXES = frozenset(
    {
        *COMMON_SUFFIXES, ".m4v", ".qt", ".divx", ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t",
        ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".dv", ".gif",
    }
)  # fmt: skip
"""Suffixes of videos, lower case, for all commands."""
SECONDARY_SUFFIXES = frozenset({".lrv", ".lrf", ".part", ".crdownload", ".download", ".tmp", ".bak", ".old"})
"""Suffixes of previews that cameras write, unfinished downloads and backups."""
OTHER_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".thm", ".cr3", ".aae",
        ".wav", ".mp3", ".m4a", ".m4b", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wma", ".mka", ".weba",
        ".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".pdf", ".srt", ".vtt", ".ass", ".log", ".yaml",
        ".npy", ".npz", ".h5", ".pts", ".parquet", ".pkl", ".pt", ".pth", ".safetensors", ".onnx", ".py",
        ".zip", ".tar", ".gz", ".rar", ".7z", ".ini", ".db", ".url", ".lnk",
    }
)  # fmt: skip
"""Suffixes of files that are never videos. Their content is not checked."""
LITTER = frozenset(
    {
        "$recycle.bin", "recycler", "recycled", "system volume information", "lost+found", "__macosx", "@eadir",
        "@tmp", "#recycle", "#snapshot", "~snapshot", "thumbs.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
"""Names of files and folders that file managers and file systems create, lower case."""
_TEXT_SUFFIXES = frozenset({".ts", ".mts"})
"""Suffixes of transport streams that are also suffixes of TypeScript files."""
_STILL_BRANDS = frozenset({b"M4A ", b"M4B ", b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"crx "})
"""Brands of ISO base media files with only sound or an image."""
HEAD_BYTES = 377
"""Enough to recognise any format: a transport stream by the first bytes of three packets."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)
_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/\d+)|/proc/[^/]+/fd/\d+")
NO_FILE = "no such file"
_GIVE_FILE = "Give a file; `affect live` reads URLs."

Report = Callable[[Problem], None]


def walk(
    root: Path,
    suffixes: frozenset[str],
    report: Report,
    keep: Callable[[Path, bool], bool] = lambda _path, _folder: True,
) -> Iterator[Path]:
    """Yields the regular files below a folder, folder by folder, sorted by name.

    suffixes: those of relevant files. Dangling links, pipes and devices with these suffixes are reported, and folders
    that cannot be read. keep: called with each path and whether it is a folder; returns whether to yield or enter it.
    The name of a problem is the path.
    """
    entered: set[Path] = set()
    queue = [root]
    while queue:
        folder = queue.pop()
        # Links are followed, so a link to a parent folder would lead to an endless loop. Compared by real path, not by
        # inode: some network file systems give every folder the inode 0.
        real = folder.resolve()
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry for entry in entries if not is_litter(entry.name)), key=lambda entry: entry.name)
        except OSError as error:
            report(_unreadable(folder, error))
            continue
        below: list[Path] = []
        for entry in found:
            path = Path(entry.path)
            try:
                mode = _mode(entry)
            except OSError as error:
                _report_unreadable(path, error, suffixes, report)
                continue
            if stat.S_ISDIR(mode):
                if keep(path, True):
                    below.append(path)
            elif stat.S_ISREG(mode):
                if keep(path, False):
                    yield path
            elif path.suffix.lower() in suffixes:
                report(Problem("refused", str(path), f"is {_kind(mode)}, not a file", "Replace it with a file."))
        queue += reversed(below)


def closed(folder: Path) -> Problem | None:
    """The problem with a folder that cannot be listed. None if it can be, or does not exist."""
    try:
        with os.scandir(folder):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return _unreadable(folder, error)


def is_litter(name: str) -> bool:
    """Whether a name is hidden or belongs to a file manager."""
    return name.startswith(".") or name.lower() in LITTER


def composed(name: str) -> str:
    """A name in Unicode form NFC: some systems store `é` as one character, others as two."""
    return unicodedata.normalize("NFC", name)


def blurred(name: str) -> str:
    """A name for comparing similar names: without case, blanks, dashes, letter width and leading zeros."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[\W_]", "", re.sub(r"(?<!\d)0+(?=\d)", "", plain))


def rank(path: Path) -> int:
    """Of several videos with the same stem, the one with the lowest rank is used: a .gif is usually a preview."""
    suffix = path.suffix.lower()
    return 0 if suffix in COMMON_SUFFIXES else 2 if suffix == ".gif" else 1


def suffixes_in_words() -> str:
    return ", ".join((*COMMON_SUFFIXES, *sorted(VIDEO_SUFFIXES.difference(COMMON_SUFFIXES))))


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video and is not source code with that suffix."""
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES and not (suffix in _TEXT_SUFFIXES and _is_text(path))


def holds_video(path: Path) -> bool:
    """Whether a file with an unknown suffix starts like a video."""
    return path.suffix.lower() not in VIDEO_SUFFIXES | OTHER_SUFFIXES and starts_like_video(file_head(path))


def starts_like_video(head: bytes) -> bool:
    """Whether these are the first bytes of a video. head: from `file_head`."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILL_BRANDS
    starts = (
        b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\1\xba", b"\0\0\1\xb3",
        b"\0\0\0\1\x67", b"\0\0\1\x67", b"\0\0\0\1\x40", b"\0\0\0\1\x09", b"DKIF", b".RMF", b"YUV4MPEG2 ",
        b"nut/multimedia container", b"\x06\x0e\x2b\x34\x02\x05\x01\x01", b"\x12\0\x0a",
    )  # fmt: skip
    avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return avi or head.startswith(starts) or (len(head) == HEAD_BYTES and head[::188] == b"GGG")


def url_of(source: str | Path) -> str | None:
    """The URL in a text or path, or None. Restores the slashes that a Path removes from a URL."""
    text = str(source)
    found = _URL.match(text)
    if found is None:
        return None
    slashes = "/" * max(2 + (found[1].lower() == "file"), len(found[0]) - len(found[1]) - 1)
    return f"{found[1]}:{slashes}{text[found.end() :]}"


def fault_of(path: Path) -> Problem | None:
    """The problem with a path that cannot be read as a file. None for a regular file.

    Standard input is always a problem, even if redirected from a file: the decoder process has another one.
    """
    url = url_of(path)
    name = url or str(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if url is not None and url.lower().startswith("file:"):
            return Problem("refused", name, "is a URL, not a file", f"Give the file by its path: {url[7:]}")
        if url is not None:
            remedy = "Download it and give the file; `affect live` reads URLs."
            return Problem("refused", name, "is a URL, not a file", remedy)
        if name == "-":
            return Problem("refused", name, "is standard input, not a file", _GIVE_FILE)
        if path.is_symlink():
            return Problem("missing", name, *_dangling(path))
        near = similar_file(path)
        return Problem("missing", name, NO_FILE, f"Did you mean {near}?" if near else "")
    except OSError as error:
        return Problem("missing", name, _cannot(error), _remedy_of(error))
    if stat.S_ISDIR(mode):
        return Problem("refused", name, "is a folder, not a file", "Give a file.")
    if _DESCRIPTOR.fullmatch(str(path.absolute())):
        return Problem("refused", name, "is a pipe or a redirection, not a file", _GIVE_FILE)
    if not stat.S_ISREG(mode):
        return Problem("refused", name, f"is {_kind(mode)}, not a file", _GIVE_FILE)
    return None


def similar_file(path: Path) -> Path | None:
    """A file with a similar name in the same folder."""
    try:
        names = sorted(entry.name for entry in os.scandir(path.parent))
    except OSError:
        return None
    for normalise in (composed, str.casefold, blurred):
        for name in names:
            if normalise(name) == normalise(path.name):
                return path.with_name(name)
    same_stem = [path.with_name(name) for name in names if Path(name).stem == path.stem]
    return min((file for file in same_stem if file.suffix.lower() in VIDEO_SUFFIXES), key=rank, default=None)


def _mode(entry: os.DirEntry[str]) -> int:
    """The file type of the target of an entry. Calls stat only if the listing has no type. Raises OSError."""
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else entry.stat().st_mode


def _report_unreadable(path: Path, error: OSError, suffixes: frozenset[str], report: Report) -> None:
    """Reports an entry that exists but cannot be read. Usually it is a dangling link."""
    if isinstance(error, FileNotFoundError) and not path.is_symlink():
        return  # removed after the folder was listed
    message, remedy = _dangling(path) if isinstance(error, FileNotFoundError) else (_cannot(error), _remedy_of(error))
    # A link without a suffix may lead to a folder of videos, for example on a disk that is not mounted.
    relevant = path.suffix.lower() in suffixes or not path.suffix
    report(Problem("missing" if relevant else "note", str(path), message, remedy))


def _unreadable(folder: Path, error: OSError) -> Problem:
    return Problem("missing", str(folder), f"the folder {_cannot(error)}", _remedy_of(error))


def _dangling(path: Path) -> tuple[str, str]:
    try:
        target = str(path.readlink())
    except OSError:
        target = "something"
    return f"is a link to {target}, which does not exist", "Restore the target, or remove the link."


def _cannot(error: OSError) -> str:
    return "is a link to itself" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"


def _remedy_of(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "Remove the link."
    if isinstance(error, PermissionError):
        return "Check its permissions and those of the folders above it."
    return "Check the path and the disk."


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def file_head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""  # the error is reported when the file is read


def _is_text(path: Path) -> bool:
    head = file_head(path, 256)
    if not head or b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut off at the end
    return True
