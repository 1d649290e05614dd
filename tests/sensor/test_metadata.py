import pytest

from lowlight_kedro.sensor.metadata import clean_verdict, fingerprint, list_tiles


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
    assert clean_verdict(tile) == verdict


def test_tiles_of_files_inherit_and_may_overrule():
    metadata = {"files": [{"split": "val", "data_type": "long", "tiles": [{"tile_id": "a"}, {"tile_id": "b", "split": "test"}]}]}
    assert [(t["tile_id"], t["split"], t["data_type"]) for t in list_tiles(metadata)] == [("a", "val", "long"), ("b", "test", "long")]


def test_both_layouts_have_the_same_fingerprint_and_another_tile_another():
    tile = {"tile_id": "a", "split": "train"}
    nested = {"files": [{"split": "train", "tiles": [{"tile_id": "a"}]}]}
    assert fingerprint({"tiles": [tile]}) == fingerprint(nested) != fingerprint({"tiles": [tile | {"tile_id": "b"}]})


def test_metadata_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="got keys: images"):
        list_tiles({"images": []})
    with pytest.raises(ValueError, match="tile number 0 of the metadata has no tile_id"):
        list_tiles({"tiles": [{"name": "x"}]})
