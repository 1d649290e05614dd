import numpy as np
import pytest

from lowlight_kedro.sensor import tiles


@pytest.mark.parametrize(("shape", "size", "stride"), [((300, 451), 256, 256), ((256, 256), 256, 128), ((100, 77), 16, 7)])
def test_tiles_cover_the_image_and_pasting_them_gives_it_back(shape, size, stride, rng):
    image = rng.normal(size=(3, *shape))
    pasted = np.full_like(image, np.nan)
    for place, tile in tiles.cut(image, size, stride):
        pasted[:, place.top : place.top + size, place.left : place.left + size] = tile
    np.testing.assert_array_equal(pasted, image)


def test_the_tile_domain_round_trips_light_and_projects_the_rest():
    light = np.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(tiles.from_tile_domain(tiles.to_tile_domain(light)), light)
    np.testing.assert_array_equal(tiles.to_tile_domain(np.array([-0.5, 2.0])), [-1, 1])
    assert tiles.clipped_fraction(np.array([-0.5, 0.5, 2.0, 1.0])) == 0.5


@pytest.mark.parametrize(("length", "size", "stride", "words"), [
    (100, 256, 256, "smaller than the tile size 256"), (300, 256, 300, "got stride=300, size=256"),
])  # fmt: skip
def test_impossible_grids_say_why(length, size, stride, words):
    with pytest.raises(ValueError, match=words):
        tiles.starts(length, size, stride)
