import pickle

import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.sensor import tile_metadata as checks
from lowlight_kedro.sensor.tile_metadata import clean_verdicts, fingerprint, list_tiles, replace_tiles, tile_files, tile_table


@pytest.mark.parametrize(("tile", "verdict"), [
    ({"tile_id": "a_0.1s", "is_clean": True, "data_type": "short"}, (True, "is_clean")),
    ({"tile_id": "a", "is_clean": False, "data_type": "long"}, (False, "is_clean")),
    ({"tile_id": "a_0.1s", "data_type": "long"}, (True, "data_type")),
    ({"tile_id": "a", "data_type": "noisy"}, (False, "data_type")),
    ({"tile_id": "00001_00_0.04s_r0"}, (False, "name")),
    ({"tile_id": "00001_00_10s_r0"}, (True, "name")),
    ({"tile_id": "00001_00_10s_r0", "data_type": "something else"}, (True, "name")),
])  # fmt: skip
def test_the_three_rules_in_their_order(tile, verdict):
    others = [{"tile_id": "b_0.1s"}, {"tile_id": "c", "is_clean": False}, {"tile_id": "d", "data_type": "clean"}]
    clean, rule = clean_verdicts(tile_table({"tiles": [tile, *others]}))
    assert list(zip(clean.tolist(), rule.tolist(), strict=True)) == [verdict, (False, "name"), (False, "is_clean"), (True, "data_type")]


def test_tiles_of_files_inherit_and_may_overrule():
    metadata = {"files": [{"split": "val", "data_type": "long", "tiles": [{"tile_id": "a"}, {"tile_id": "b", "split": "test"}]}]}
    assert [(t["tile_id"], t["split"], t["data_type"]) for t in list_tiles(metadata)] == [("a", "val", "long"), ("b", "test", "long")]


def test_both_layouts_have_the_same_fingerprint_and_another_tile_another():
    tile = {"tile_id": "a", "split": "train"}
    nested = {"files": [{"split": "train", "tiles": [{"tile_id": "a"}]}]}
    assert fingerprint({"tiles": [tile]}) == fingerprint(nested) != fingerprint({"tiles": [tile | {"tile_id": "b"}]})


COLUMNS = {"files": [
    {"split": "val", "is_clean": True, "tiles": {"tile_id": ["a", "b"], "stack": "f.npy", "index": [0, 1]}},
    {"split": "train", "tiles": {"tile_id": ["c"], "pt_path": ["c.pt"], "is_clean": [False]}}, {"split": "train", "tiles": []},
]}  # fmt: skip
RECORDS = {"files": [
    {"split": "val", "is_clean": True, "tiles": [{"tile_id": name, "stack": "f.npy", "index": k} for k, name in enumerate("ab")]},
    {"split": "train", "tiles": [{"tile_id": "c", "pt_path": "c.pt", "is_clean": False}]}, {"split": "train"},
]}  # fmt: skip


def test_columns_and_records_say_the_same():
    pd.testing.assert_frame_equal(tile_table(COLUMNS), tile_table(RECORDS))
    assert fingerprint(COLUMNS) == fingerprint(RECORDS)
    assert list_tiles(COLUMNS) == list_tiles(RECORDS)
    taken = [tile if tile["tile_id"] != "a" else None for tile in list_tiles(COLUMNS)]
    assert list_tiles(replace_tiles(COLUMNS, taken)) == taken[1:]


def test_the_table_says_where_each_tile_lies():
    told = tile_table(COLUMNS)
    assert told["index"].tolist() == [0, 1, -1]
    assert told["stack"].astype(object).where(told["stack"].notna(), None).tolist() == ["f.npy", "f.npy", None]
    assert told["pt_path"].tolist() == ["", "", "c.pt"]


def test_other_bytes_in_a_file_are_another_fingerprint():
    first, second = (
        {"files": [{"digests": {"f.npy": digest}, "tiles": {"tile_id": ["a"], "stack": "f.npy", "index": [0]}}]} for digest in "xy"
    )
    assert fingerprint(first) != fingerprint(second)


def test_metadata_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="got keys: images"):
        list_tiles({"images": []})
    with pytest.raises(ValueError, match="tile number 0 of the metadata has no tile_id"):
        list_tiles({"tiles": [{"name": "x"}]})


def test_a_tile_in_a_stack_has_one_place_and_a_tile_alone_three():
    assert tile_files({"tile_id": "a", "stack": "long/f.npy", "index": 2, "pt_path": "x.pt"}) == ["long/f.npy"]
    assert tile_files({"tile_id": "a", "pt_path": "x.pt"}) == ["x.pt", "a.pt", "long/a.pt"]


@pytest.mark.parametrize("index", [None, "3", 1.0, True])
def test_a_stack_without_a_number_is_refused(index):
    with pytest.raises(ValueError, match=r"tile a: `index` must be its place in f\.npy"):
        list_tiles({"tiles": [{"tile_id": "a", "stack": "f.npy", "index": index}]})


def test_another_place_is_another_fingerprint():
    tile = {"tile_id": "a", "stack": "f.npy", "index": 0}
    assert fingerprint({"tiles": [tile]}) != fingerprint({"tiles": [tile | {"index": 1}]})


def test_tiles_are_replaced_in_the_order_in_which_they_are_listed():
    metadata = {"version": 1, "tiles": [{"tile_id": "a"}], "files": [{"split": "val", "tiles": [{"tile_id": "b"}, {"tile_id": "c"}]}, {}]}
    named = [tile["tile_id"] for tile in list_tiles(metadata)]
    new = replace_tiles(metadata, [None if name == "b" else {"tile_id": name.upper()} for name in named])
    assert [tile["tile_id"] for tile in list_tiles(new)] == ["A", "C"]
    assert (new["version"], new["files"][0]["split"]) == (1, "val")
    assert metadata["files"][0]["tiles"] == [{"tile_id": "b"}, {"tile_id": "c"}]


def test_ten_thousand_tiles_take_two_hundred_bytes_each_in_a_worker_too():
    tiles = {"tile_id": [f"Sony_long_00001_00_10s_r{k:05d}" for k in range(5000)], "index": list(range(5000))}
    files = [
        {"split": split, "is_clean": True, "scene_id": split, "tiles": tiles | {"stack": f"{split}.npy"}} for split in ("train", "val")
    ]
    table = tile_table({"files": files})
    assert table.memory_usage(deep=True).sum() < 200 * len(table)
    assert len(pickle.dumps(table)) < 100 * len(table)


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
