"""A picture is read as a viewer shows it, and each that cannot be read is named with a remedy."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from affect.pipeline.errors import PictureError
from affect.pipeline.ingest.pictures import is_picture, read_picture
from PIL import Image

SHAPES = Image.Transpose
STORED = {
    1: None, 2: SHAPES.FLIP_LEFT_RIGHT, 3: SHAPES.ROTATE_180, 4: SHAPES.FLIP_TOP_BOTTOM, 5: SHAPES.TRANSPOSE,
    6: SHAPES.ROTATE_90, 7: SHAPES.TRANSVERSE, 8: SHAPES.ROTATE_270,
}  # fmt: skip
"""How a picture is stored with each EXIF orientation."""
ORIENTATION = 0x112


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8 [30, 40, 3], without symmetry."""
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_the_exif_orientation_is_applied_once(
    pixels: np.ndarray, tmp_path: Path, orientation: int, suffix: str
) -> None:
    image, exif = Image.fromarray(pixels), Image.Exif()
    how = STORED[orientation]
    exif[ORIENTATION] = orientation
    stored = image if how is None else image.transpose(how)
    stored.save(tmp_path / f"a.{suffix}", None, exif=exif, lossless=True)  # lossless: for WebP
    np.testing.assert_array_equal(read_picture(tmp_path / f"a.{suffix}"), pixels)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", STORED)
def test_the_exif_orientation_of_a_grey_tiff_is_applied(
    pixels: np.ndarray, tmp_path: Path, orientation: int, bits: int
) -> None:
    """Pillow reads such a file in another way than one in colour."""
    grey, exif, how = pixels[..., 0], Image.Exif(), STORED[orientation]
    exif[ORIENTATION] = orientation
    image = Image.fromarray(grey if bits == 8 else grey.astype(np.uint16) * 256)
    (image if how is None else image.transpose(how)).save(tmp_path / "a.tif", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif")[..., 1], grey)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_16_bits_the_upper_8_are_used(pixels: np.ndarray, tmp_path: Path, suffix: str) -> None:
    grey, colour = tmp_path / f"grey.{suffix}", tmp_path / f"colour.{suffix}"
    wide = pixels.astype(np.uint16) * 256 + 17
    cv2.imwrite(str(grey), wide[..., 0])
    cv2.imwrite(str(colour), wide[..., ::-1])
    np.testing.assert_array_equal(read_picture(grey), pixels[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(read_picture(colour), pixels)


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (200, 30, 90)), ("LA", (90, 90, 90)), ("P", (200, 30, 90))])
def test_transparent_parts_are_white(tmp_path: Path, mode: str, colour: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (40, 30), (*colour, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 30))
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert (found[:, :20] == 255).all()
    assert (found[:, 20:] == colour).all()


@pytest.mark.parametrize(("name", "mode"), [("a.tif", "CMYK"), ("a.png", "L"), ("a.png", "1"), ("a.bmp", "P")])
def test_other_kinds_of_pixels_become_rgb(pixels: np.ndarray, tmp_path: Path, name: str, mode: str) -> None:
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / name)
    np.testing.assert_array_equal(read_picture(tmp_path / name), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_of_several_images_in_a_file_the_first_is_read(pixels: np.ndarray, tmp_path: Path, name: str) -> None:
    first, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    first.save(tmp_path / name, None, save_all=True, append_images=[second], lossless=True)  # lossless: for WebP
    np.testing.assert_array_equal(read_picture(tmp_path / name), pixels)


def test_the_content_decides_the_format_and_the_suffix_does_not(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), pixels)


def test_pictures_are_known_by_their_suffix_and_a_gif_is_a_video() -> None:
    known = ("a.jpg", "a.JPEG", "a.Png", "a.webp", "a.BMP", "a.tif", "a.TIFF")
    assert all(is_picture(Path(name)) for name in known)
    assert not any(is_picture(Path(name)) for name in ("a.gif", "a.mp4", "a.txt", "jpg"))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def save(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (8, 8)).save(path)


def noise(path: Path, format: str, **options: object) -> None:  # noqa: A002
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)).save(path, format, **options)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.jpg": (lambda _: None, "no such file"),
    "empty.jpg": (Path.touch, r"is empty\. Restore"),
    "text.jpg": (lambda path: path.write_text("<html>404</html>"), "is not a JPEG, PNG"),
    "cut.jpg": (lambda path: (noise(path, "JPEG"), cut(path)), "cannot be decoded"),
    "cut.png": (lambda path: (noise(path, "PNG"), cut(path)), "cannot be decoded"),
    "cut.webp": (lambda path: (noise(path, "WEBP"), cut(path)), "cannot be decoded"),
    "cut.bmp": (lambda path: (noise(path, "BMP"), cut(path)), "cannot be decoded"),
    "short.jpg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0"), r"\. Restore"),
    "folder.jpg": (Path.mkdir, "is a folder"),
    "gif.png": (lambda path: noise(path, "GIF"), r"is a GIF.*Rename it to end in \.gif"),
    "film.jpg": (lambda path: path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(99)), r"is a video.*\.mp4"),
    "phone.heic": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), "HEIC picture.*Convert"),
    "float.tif": (save("F"), "pixels of type 'F'.*Convert"),
    "int.tif": (save("I"), "pixels of type 'I'.*Convert"),
    "large.png": (lambda path: Image.new("1", (12000, 12000)).save(path), "12000 x 12000 pixels.*134 million.*Scale"),
    "bomb.png": (lambda path: Image.new("1", (20000, 20000)).save(path), "134 million.*Scale"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_picture_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path, name: str) -> None:
    make, message = ODD[name]
    make(tmp_path / name)
    with pytest.raises(PictureError, match=message) as told:
        read_picture(tmp_path / name)
    assert str(tmp_path / name) in told.value.problem
    assert told.value.remedy
