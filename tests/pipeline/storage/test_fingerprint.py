"""What digests and fingerprints cover."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from affect.configs.schema import Config
from affect.pipeline.errors import InputError
from affect.pipeline.storage.fingerprint import SAMPLE_BYTES, content_digest, fingerprint, source_digest
from hypothesis import given
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), JSON, max_size=5))
def test_the_order_of_keys_does_not_change_the_fingerprint(parts: dict[str, object]) -> None:
    assert fingerprint(**parts) == fingerprint(**dict(reversed(parts.items())))


@given(JSON, JSON)
def test_other_values_give_other_fingerprints(one: object, other: object) -> None:
    assert (fingerprint(part=one) == fingerprint(part=other)) == (
        repr(one) == repr(other) or one is other
    ) or one == other


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    golden = "a2a8c3d490a827d11ab1b3ca63c12e24a9c066ae4c3cf093adb955430044ba67"
    assert fingerprint(size=448, name="video", weights=[1.5, None], nested={"é": True}) == golden


def test_settings_paths_and_dataclasses_have_a_fingerprint() -> None:
    @dataclass(frozen=True)
    class Part:
        size: int

    assert fingerprint(a=Part(3)) == fingerprint(a={"size": 3})
    assert fingerprint(a=Path("b/c")) == fingerprint(a="b/c")
    assert fingerprint(a=frozenset({"y", "x"})) == fingerprint(a=["x", "y"])
    assert fingerprint(a=Config().frames) == fingerprint(a=Config().frames.model_dump())
    with pytest.raises(TypeError, match="object cannot be part of a fingerprint"):
        fingerprint(a=object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(a=float("nan"))


@pytest.mark.parametrize("place", [0, SAMPLE_BYTES - 1, -SAMPLE_BYTES, -1])
def test_the_source_digest_covers_both_ends_of_the_file(tmp_path: Path, place: int) -> None:
    path = tmp_path / "video"
    data = bytearray(4 * SAMPLE_BYTES)
    path.write_bytes(data)
    os.utime(path, ns=(0, 1_000))
    before, content = source_digest(path), content_digest(path)
    assert source_digest(path) == before
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 1_000))
    assert source_digest(path) != before
    assert content_digest(path) != content


def test_the_source_digest_covers_mtime_and_size(tmp_path: Path) -> None:
    path = tmp_path / "video"
    digests = set()
    for length, age in [(10, 1), (10, 2), (11, 1), (SAMPLE_BYTES, 1), (SAMPLE_BYTES + 1, 1), (0, 1)]:
        path.write_bytes(bytes(length))
        os.utime(path, ns=(0, age))
        digests.add(source_digest(path))
    assert len(digests) == 6


def test_the_content_digest_ignores_path_and_mtime(tmp_path: Path) -> None:
    for age, name in enumerate("ab"):
        (tmp_path / name).write_bytes(b"weights")
        os.utime(tmp_path / name, ns=(age, age))
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    assert source_digest(tmp_path / "a") != source_digest(tmp_path / "b")


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    for digest in (source_digest, content_digest):
        with pytest.raises(InputError, match=r"gone\.mp4: cannot be read"):
            digest(tmp_path / "gone.mp4")
