"""FER+ faces and votes are joined by row. Two rules make a label from ten votes."""

from pathlib import Path

import numpy as np
import pytest
from affect.pipeline.errors import FerplusError
from affect.pipeline.ingest.ferplus import (
    CLASSES,
    COLUMNS,
    distribution,
    majority,
    read_ferplus,
    read_votes,
    rule_counts,
)

USAGES = ("Training", "Training", "PublicTest", "Training", "PrivateTest")


def write(folder: Path, *, usages: tuple[str, ...] = USAGES, faces: list[str] | None = None) -> np.ndarray:
    """Writes both files. Returns the pixels, uint8 [n, 48, 48]."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(USAGES), 48, 48), dtype=np.uint8)
    rows = [f"{usage},fer{row:07}.png,{row},0,0,0,0,0,0,0,0,{10 - row}" for row, usage in enumerate(usages)]
    (folder / "fer2013new.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    if faces is None:
        texts = [" ".join(map(str, face.ravel().tolist())) for face in pixels]
        faces = [f"0,{text},{usage}" for text, usage in zip(texts, USAGES, strict=True)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *faces]) + "\n")
    return pixels


def votes(**counts: int) -> np.ndarray:
    return np.array([[counts.get(name, 0) for name in COLUMNS[2:]]], np.float32)


@pytest.mark.parametrize("given_path", [".", "fer2013.csv", "fer2013new.csv"])
def test_faces_and_votes_are_joined_by_row(tmp_path: Path, given_path: str) -> None:
    pixels = write(tmp_path)
    faces = read_ferplus(tmp_path / given_path, "Training")
    assert np.array_equal(faces.pixels, pixels[[0, 1, 3]])
    assert faces.votes[:, 0].tolist() == [0, 1, 3]
    assert len(read_ferplus(tmp_path, "PrivateTest")) == 1


def test_the_release_with_another_column_order_and_quotes_is_read(tmp_path: Path) -> None:
    pixels = write(tmp_path)
    texts = [" ".join(map(str, face.ravel().tolist())) for face in pixels]
    rows = [f'0,{usage},"{text}"' for text, usage in zip(texts, USAGES, strict=True)]
    (tmp_path / "fer2013.csv").write_text("\r\n".join(["emotion, Usage, pixels", *rows]))
    assert np.array_equal(read_ferplus(tmp_path, "Training").pixels, pixels[[0, 1, 3]])


ZEROS = " ".join(["0"] * 2304)


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([f"0,{ZEROS},Training"], "has 1 faces, but fer2013new.csv has 5"),
        ([f"0,{ZEROS},{usage}" for usage in (*USAGES, "Training")], "has 6 faces, but fer2013new.csv has 5"),
        ([f"0,{ZEROS},PublicTest"], "line 2 has usage 'PublicTest', but fer2013new.csv has 'Training' in this row"),
        ([f"0,{ZEROS} 0,Training"], "line 2 does not have 2304 pixels"),
        ([f"0,{ZEROS[:-1]}256,Training"], "line 2 does not have"),
        ([f"0,{ZEROS[:-1]}1000,Training"], "line 2 does not have"),
        ([f"0,{ZEROS[:-1]}-1,Training"], "line 2 does not have"),
        ([f"0,{ZEROS[:-1]}é,Training"], "line 2 does not have"),
        (["0,,Training"], "line 2 does not have"),
        (["0,Training"], "line 2 has 2 fields, expected 3"),
    ],
)
def test_faces_that_do_not_match_the_votes_are_refused(tmp_path: Path, faces: list[str], message: str) -> None:
    write(tmp_path, faces=faces)
    with pytest.raises(FerplusError) as caught:
        read_ferplus(tmp_path, "Training")
    assert message in caught.value.problem
    assert "Kaggle" in caught.value.remedy


def test_missing_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FerplusError, match=r"fer2013new\.csv: cannot be read"):
        read_ferplus(tmp_path, "Training")
    write(tmp_path)
    (tmp_path / "fer2013.csv").unlink()
    with pytest.raises(FerplusError, match=r"fer2013\.csv: cannot be read"):
        read_ferplus(tmp_path, "Training")
    (tmp_path / "fer2013.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FerplusError, match="line 1 is not 'emotion,pixels,Usage'"):
        read_ferplus(tmp_path, "Training")
    write(tmp_path, usages=("Training", "Validation"))
    with pytest.raises(FerplusError, match="line 3 is 'Validation,fer0000001"):
        read_votes(tmp_path / "fer2013new.csv")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"happiness": 10}, "happiness"),
        ({"neutral": 5, "sadness": 5}, None),
        ({"neutral": 5, "sadness": 4, "fear": 1}, "neutral"),  # 5 of 9 once the single vote is gone
        ({"neutral": 4, "sadness": 4, "fear": 2}, None),
        ({"neutral": 4, "anger": 3, "disgust": 3}, None),
        ({"unknown": 6, "neutral": 4}, None),
        ({"NF": 10}, None),
        ({"neutral": 2, **dict.fromkeys(CLASSES[1:], 1), "unknown": 1}, "neutral"),
        ({}, None),
    ],
)
def test_a_majority_is_more_than_half_of_the_votes_without_single_votes(
    counts: dict[str, int], expected: str | None
) -> None:
    assert majority(votes(**counts)).tolist() == [CLASSES.index(expected) if expected else -1]


def test_a_distribution_sums_to_one_or_is_zero() -> None:
    shares = distribution(np.concatenate([votes(anger=6, fear=2, unknown=2), votes(anger=5, NF=5), votes()]))
    assert shares.dtype == np.float32
    assert shares[0].tolist() == [0, 0, 0, 0, 0.75, 0, 0.25, 0]
    assert not shares[1:].any()


def test_the_real_labels_are_read_completely(real: Path) -> None:
    usage, table = read_votes(real / "fer2013new.csv")
    counts = rule_counts(table, usage)
    assert {name: line["rows"] for name, line in counts.items()} == {
        "Training": 28709,
        "PublicTest": 3589,
        "PrivateTest": 3589,
    }
    assert {name: line["majority"] for name, line in counts.items()} == {
        "Training": 25060,
        "PublicTest": 3199,
        "PrivateTest": 3153,
    }
    for name, line in counts.items():
        cells = [line["rows"], line["majority"], line["distribution"], *line["classes"].values()]
        row = f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |"
        assert row in (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    sums = distribution(table).sum(axis=1)
    assert np.all((np.abs(sums - 1) < 1e-6) | (sums == 0))
