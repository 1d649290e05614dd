import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.sensor import scenes

PATTERN = r"(?P<scene>\d{5})_\d{2}_(?P<exposure>[\d.]+)s$"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def frames(*rows):
    table = pd.DataFrame(rows, columns=["frame", "exposure_s"])
    table["path"] = table["frame"] + ".ARW"
    table["scene"] = [scenes.scene_of(name, PATTERN)[0] for name in table["frame"]]
    table["data_type"] = scenes.data_types(table)
    return table.assign(split="train", iso=100.0, camera="c")


@pytest.mark.parametrize(("name", "scene", "exposure"), [
    ("Sony/short/00001_00_0.04s", "Sony_00001", 0.04),
    ("Fuji/long/20003_00_10s", "Fuji_20003", 10.0),
    ("holiday/DSC_0001", "holiday", np.nan),
    ("DSC_0001", "scene", np.nan),
])  # fmt: skip
def test_names_tell_scene_and_exposure(name, scene, exposure):
    assert scenes.scene_of(name, PATTERN) == (scene, pytest.approx(exposure, nan_ok=True))


def test_each_short_exposure_finds_the_long_one_of_its_scene():
    pairs, alone = scenes.pair(frames(
        ("Sony/long/00001_00_10s", 10), ("Sony/short/00001_00_0.1s", 0.1), ("Sony/short/00001_01_0.01s", 0.01),
        ("Fuji/long/00001_00_30s", 30), ("Fuji/short/00002_00_0.1s", 0.1),
    ))  # fmt: skip
    assert dict(zip(pairs["short"], pairs["exposure_ratio"], strict=True)) == {
        "Sony/short/00001_00_0.1s": pytest.approx(100), "Sony/short/00001_01_0.01s": 300,
    }  # fmt: skip
    assert set(pairs["long"]) == {"Sony/long/00001_00_10s"}
    assert alone == [{"file": "Fuji/short/00002_00_0.1s.ARW", "reason": "no long exposure of scene Fuji_00002"}]


def test_without_folders_the_longest_exposure_is_the_long_one():
    table = frames(("a", 1 / 640), ("b", 1 / 40), ("c", 1 / 160))
    assert table["data_type"].tolist() == ["short", "long", "short"]


def test_a_ratio_below_one_is_no_pair():
    pairs, alone = scenes.pair(frames(("S/long/00001_00_0.1s", 0.1), ("S/short/00001_00_10s", 10)))
    assert pairs.empty
    assert "expected at least 1" in alone[0]["reason"]


def test_the_hash_split_keeps_its_shares_and_never_moves_a_scene():
    names = [f"Sony_{number:05d}" for number in range(4000)]
    splits = [scenes.split_of(name, "hash", SHARES, {}) for name in names]
    for split, share in SHARES.items():
        assert abs(splits.count(split) / 4000 - share) < 5 * np.sqrt(share * (1 - share) / 4000)
    assert splits[:100] == [scenes.split_of(name, "hash", SHARES, {}) for name in names[:100]]


def test_sid_numbering_and_choices_by_hand():
    by_digit = {
        name: scenes.split_of(name, "first_digit", SHARES, {"Sony_00009": "val"})
        for name in ("Sony_00001", "Sony_10003", "Sony_20001", "Sony_00009")
    }
    assert list(by_digit.values()) == ["train", "test", "val", "val"]
