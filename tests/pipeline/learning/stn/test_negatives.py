"""Where every frame shows a face, drawn places teach the STN what none looks like."""

import torch
from affect.pipeline.learning.stn.negatives import add_background_negatives
from affect.pipeline.learning.stn.train_data import BoxedImages


def pictures(faces: int, empty: int = 0) -> BoxedImages:
    n = faces + empty
    pixels = torch.randint(0, 256, (n, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return BoxedImages(pixels, torch.eye(2, 3).expand(n, 2, 3) / 2, torch.arange(n) < faces)


def test_places_come_where_every_picture_shows_a_face() -> None:
    given = pictures(800)
    more = add_background_negatives(given, 5)
    added = more.pixels[800:]
    assert len(more) == 848
    assert torch.equal(more.pixels[:800], given.pixels)
    assert torch.equal(more.theta[:800], given.theta)
    assert more.face.tolist() == [True] * 800 + [False] * 48
    assert (added.dtype, added.shape[1:]) == (torch.uint8, (3, 40, 40))
    assert (added.float().std((1, 2, 3)) > 3).all(), "something is to be seen"
    assert len({picture.numpy().tobytes() for picture in added}) == 48
    assert torch.equal(add_background_negatives(given, 5).pixels, more.pixels)
    assert not torch.equal(add_background_negatives(given, 6).pixels, more.pixels)


def test_few_pictures_get_enough_and_many_do_not_drown() -> None:
    assert len(add_background_negatives(pictures(20), 0)) == 52
    assert len(add_background_negatives(pictures(8000), 0)) == 8400


def test_a_set_that_has_frames_without_a_face_stays_as_it_is() -> None:
    for given in (pictures(95, 5), pictures(0, 4), pictures(0)):
        assert add_background_negatives(given, 0) is given
