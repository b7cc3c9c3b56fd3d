"""The reference of a model tells people like the training people from faces of another kind, and survives its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from affect.pipeline.errors import WeightsError
from affect.pipeline.learning.reference import (
    MIN_PEOPLE,
    TEXTURE,
    Contrast,
    Reference,
    describe,
    fit_reference,
    from_state,
    sample_rows,
    to_state,
)
from torch import Tensor

WIDTH = TEXTURE + 32


def people(count: int, seed: int, *, kind: int = 0, frames: int = 40) -> list[Tensor]:
    """Features of people: a kind has its own main directions; each person has a place of their own on them."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(kind)).abs()
    found = []
    for _ in range(count):
        place = torch.rand(12, generator=generator) + 0.3 * torch.rand(frames, 12, generator=generator)
        noise = 0.3 * torch.rand(frames, WIDTH, generator=generator)
        rows = place @ directions + noise
        found.append(describe(rows[:, :TEXTURE], rows[:, TEXTURE:]))
    return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    found = fit_reference(people(40, 1), people(8, 2))
    assert found is not None
    return found


def judged(reference: Reference, features: Tensor, seen: np.ndarray | None = None) -> tuple[float, float, bool]:
    seen = np.ones(len(features), bool) if seen is None else seen
    found = reference.judge(reference.distance(features).numpy(), seen)
    assert found is not None
    return found.distance, found.percentile, found.beyond


def test_new_people_of_the_same_kind_are_within_and_another_kind_is_beyond(reference: Reference) -> None:
    same = [judged(reference, features) for features in people(60, 3)]
    other = [judged(reference, features) for features in people(20, 4, kind=1)]
    assert np.mean([beyond for *_, beyond in same]) <= 0.05
    assert all(beyond for *_, beyond in other)
    assert 25 < np.mean([percentile for _, percentile, _ in same]) < 75
    assert {percentile for _, percentile, _ in other} == {100.0}


def test_the_size_of_all_features_does_not_matter() -> None:
    texture, feature = torch.rand(4, TEXTURE), torch.rand(4, 32)
    assert torch.allclose(describe(texture, feature), describe(3 * texture, 0.1 * feature))


def test_only_frames_with_a_face_count(reference: Reference) -> None:
    features = torch.cat((people(1, 6)[0], people(1, 6, kind=1, frames=100)[0]))
    seen = np.arange(len(features)) < 40
    assert not judged(reference, features, seen)[2]
    assert judged(reference, features)[2]
    assert reference.judge(reference.distance(features).numpy(), np.zeros(len(features), bool)) is None


def test_too_few_people_have_no_reference() -> None:
    assert fit_reference(people(MIN_PEOPLE - 1, 1)) is None
    assert fit_reference([*people(MIN_PEOPLE - 1, 1), torch.empty(0, WIDTH)]) is None


def test_validation_people_who_lie_farther_away_raise_the_limit(reference: Reference) -> None:
    far = [features + 0.5 * torch.rand_like(features.float()) for features in people(8, 2)]
    shifted = fit_reference(people(40, 1), far)
    assert shifted is not None
    features = people(1, 9, kind=1)[0]
    assert judged(shifted, features)[0] < judged(reference, features)[0]


def test_the_fit_is_the_same_each_time(reference: Reference) -> None:
    again = fit_reference(people(40, 1), people(8, 2))
    assert again is not None
    assert np.array_equal(again.score, reference.score)


def test_a_reference_is_small_and_comes_back_from_its_tensors(reference: Reference) -> None:
    contrast = Contrast(torch.randn(3, WIDTH), torch.rand(3), torch.rand(3))
    for one in (reference, Reference(reference.subspace, contrast, reference.score, 40)):
        state, facts = to_state(one)
        again = from_state(state, facts)
        features = torch.cat(people(3, 7))
        assert again is not None
        assert torch.allclose(again.distance(features), one.distance(features), atol=1e-4)
        assert (again.people, again.limit) == (one.people, one.limit)
        assert sum(it.numel() * it.element_size() for it in state.values()) < 2**20


def test_a_reference_of_a_later_version_is_left_alone_and_a_damaged_one_is_refused(reference: Reference) -> None:
    state, facts = to_state(reference)
    assert facts is not None
    assert from_state(state, {**facts, "version": 99}) is None
    assert from_state({}, None) is None
    with pytest.raises(WeightsError, match="reference of the model is damaged"):
        from_state({name: it for name, it in state.items() if "basis" not in name}, facts)


def test_sampled_rows_show_a_face_and_spread_over_the_video() -> None:
    seen = np.arange(1000) % 2 == 0
    rows = sample_rows(seen, 50)
    assert len(rows) == 50
    assert seen[rows].all()
    assert (rows[0], rows[-1]) == (0, 998)
    assert sample_rows(seen[:10], 50).tolist() == [0, 2, 4, 6, 8]


def test_a_model_file_keeps_its_weights_and_gets_a_new_fingerprint(
    reference: Reference, tiny_run: object, tmp_path: Path
) -> None:
    from affect.pipeline.learning.model_file import add_reference, load_model, model_path, read_reference

    run = tiny_run(tmp_path / "run")  # type: ignore[operator]
    before, info = load_model(run)
    assert read_reference(run) is None
    add_reference(run, reference)
    add_reference(run, reference)  # in place of the first one
    after, new = load_model(run)
    assert all(torch.equal(it, after.state_dict()[name]) for name, it in before.state_dict().items())
    assert new.fingerprint != info.fingerprint
    again = read_reference(model_path(run))
    assert again is not None
    assert np.array_equal(again.score, reference.score)
