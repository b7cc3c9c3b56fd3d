"""The record of box files: entries survive a killed process, and adding one does not write all others again."""

from pathlib import Path

from affect.pipeline.features.box_record import NAME, NEW, BoxRecord
from affect.pipeline.storage.fingerprint import content_digest


def record(folder: Path, name: str, made_from: str) -> Path:
    """Writes a box file and records it, without saving the record."""
    file = folder / name
    file.write_text(f"boxes of {name}", encoding="utf-8")
    BoxRecord(folder).add(file, made_from, content_digest(file))
    return file


def test_entries_of_a_killed_process_are_known_to_the_next_one(tmp_path: Path) -> None:
    file = record(tmp_path, "a.csv", "old detector")
    with (tmp_path / NEW).open("a", encoding="utf-8") as lines:
        lines.write('["b.csv", "old det')  # killed within the line
    after = BoxRecord(tmp_path)
    assert after.is_outdated(file, "new detector")
    assert not after.is_outdated(file, "old detector")
    assert tmp_path / "b.csv" not in after


def test_an_entry_after_an_unfinished_line_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / NEW).write_text('["b.csv", "old det', encoding="utf-8")
    file = record(tmp_path, "a.csv", "old detector")
    assert BoxRecord(tmp_path).is_outdated(file, "new detector")


def test_a_saved_record_keeps_earlier_entries_and_their_format(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"z.csv": ["old detector", "0"]}', encoding="utf-8")
    file = record(tmp_path, "a.csv", "old detector")
    BoxRecord(tmp_path).save()
    assert not (tmp_path / NEW).exists()
    saved = BoxRecord(tmp_path)
    assert file in saved
    assert tmp_path / "z.csv" in saved


def test_the_cost_of_an_entry_does_not_grow_with_the_record(tmp_path: Path) -> None:
    added = []
    for number in range(50):
        before = sum(path.stat().st_size for path in tmp_path.glob(".detected*"))
        saved = (tmp_path / NAME).stat() if (tmp_path / NAME).exists() else None
        record(tmp_path, f"{number:02}.csv", "detector")
        added.append(sum(path.stat().st_size for path in tmp_path.glob(".detected*")) - before)
        assert ((tmp_path / NAME).stat() if (tmp_path / NAME).exists() else None) == saved
    assert len(set(added)) == 1
