import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.sensor import tile_checks as checks

SHAPE = (3, 16, 16)


def good(rng):
    return rng.uniform(-1, 1, SHAPE).astype(np.float32)


def spoil(tile, where, value):
    tile = tile.copy()
    tile[where] = value
    return tile


FORM = {
    "dtype": lambda tile: tile.astype(np.float64),
    "shape": lambda tile: tile[:, 1:],
    "finite": lambda tile: spoil(tile, (0, 0, 0), np.nan),
    "range": lambda tile: spoil(tile, (0, 0, 0), 1.01),
}


@pytest.mark.parametrize("kind", FORM)
def test_each_fault_of_form_is_found_and_named(kind, rng):
    (problem,) = checks.check_form("t", FORM[kind](good(rng)), SHAPE)
    assert (problem.tile_id, problem.kind) == ("t", kind)


def test_a_good_tile_has_no_problem(rng):
    assert checks.check_form("t", good(rng), SHAPE) == []
    assert checks.check_content("t", good(rng), min_std=1e-5, max_saturated=0.9) == []


def test_constant_and_saturated_content_is_found(rng):
    constant = np.full(SHAPE, 0.5, np.float32)
    saturated = spoil(good(rng), (1, slice(None), slice(2, None)), 1.0)
    assert checks.check_content("t", constant, min_std=1e-5, max_saturated=0.5)[0].kind == "constant"
    assert checks.check_content("t", saturated, min_std=1e-5, max_saturated=0.5)[0].kind == "saturated"


def test_duplicates_name_the_first(rng):
    tile = good(rng)
    digests = {"a": checks.digest(tile), "b": checks.digest(good(rng)), "c": checks.digest(tile.copy())}
    found = checks.check_duplicates(pd.Series(digests, name="digest").rename_axis("tile_id"))
    assert [(p.tile_id, p.message) for p in found] == [("c", "has the same content as a")]


def test_a_scene_in_two_splits_is_found():
    tiles = pd.DataFrame({"scene_id": ["1", "1", "2", None], "split": ["train", "val", "val", "train"]}).astype("category")
    assert [(p.tile_id, p.kind) for p in checks.check_splits(tiles)] == [("1", "split")]
