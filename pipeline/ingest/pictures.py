"""Reads pictures: the first image of a file, upright, in RGB, with a remedy for each that cannot be read."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PictureError
from .video.timeline import MAX_PIXELS
from .walk import VIDEO_SUFFIXES, fault_of, file_head, starts_like_video

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Formats that are read, with Pillow's names."""
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
HEIC_SUFFIXES = frozenset({".heic", ".heif"})
"""Suffixes of pictures that cannot be read. They are listed with the remedy."""
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
"""Pillow's modes with 8 bits per value that it can convert to RGB."""
HEIC_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis")

_CONVERT = "Convert it to a JPEG or PNG."
_AS_VIDEO = "Predict it as a video."
_RESTORE = "Restore the file, or leave it out."


def is_picture(path: Path) -> bool:
    """Whether a file has the suffix of a picture. A GIF is a video."""
    return path.suffix.lower() in PICTURE_SUFFIXES | HEIC_SUFFIXES


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Reads the first image of a file, upright, as uint8 [h, w, 3] RGB.

    Applies the EXIF orientation. Transparent parts become white. Of 16 bits per value, the upper 8 are used. Colour
    profiles are ignored. The suffix need not fit the format. Raises PictureError.
    """
    fault = fault_of(path)
    if fault is not None:
        raise PictureError(f"{path}: {fault.message}", fault.remedy or "Check the path.")
    try:
        if not path.stat().st_size:
            raise PictureError(f"{path}: is empty", _RESTORE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged EXIF data and large pictures
            # Not by name: Pillow would map a grey TIFF into memory, and mix up the rows of a rotated one.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path, f"{image.width} x {image.height} pixels")
                ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb(path, image)
    except UnidentifiedImageError as error:
        raise _unknown(path) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "too many pixels") from error
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # Pillow raises errors of many types for damaged files
        if isinstance(error, OSError) and error.errno is not None:
            problem = f"{path}: cannot be read ({error.strerror})"
            raise PictureError(problem, "Check the file and its permissions.") from error
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise PictureError(f"{path}: cannot be decoded ({reason})", _RESTORE) from error


def _to_rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if image.mode not in MODES:
        problem = f"has pixels of type {image.mode!r}, allowed are 8 or 16 bits per value, grey, RGB or CMYK"
        raise PictureError(f"{path}: {problem}", _CONVERT)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def _unknown(path: Path) -> PictureError:
    """The error for a file that Pillow does not recognise."""
    head = file_head(path)
    suffix = path.suffix.lower()
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return PictureError(f"{path}: is a HEIC picture", _CONVERT)
    if head.startswith(b"GIF8"):
        remedy = _AS_VIDEO if suffix == ".gif" else "Rename it to end in .gif."
        return PictureError(f"{path}: is a GIF, which affect reads as a video", remedy)
    if starts_like_video(head):
        remedy = _AS_VIDEO if suffix in VIDEO_SUFFIXES else "Rename it to end in the suffix of a video, such as .mp4."
        return PictureError(f"{path}: is a video", remedy)
    problem = "is not a JPEG, PNG, WebP, BMP or TIFF picture, or its first bytes are damaged"
    return PictureError(f"{path}: {problem}", "Restore the file, or convert it to a JPEG or PNG.")


def _too_large(path: Path, found: str) -> PictureError:
    return PictureError(f"{path}: has {found}, allowed are {MAX_PIXELS / 1e6:.0f} million", "Scale it down.")
