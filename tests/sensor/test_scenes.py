import numpy as np
import pandas as pd
import pytest

from lowlight_kedro.sensor import scenes

PATTERN = r"(?P<scene>\d{5})_\d{2}_(?P<exposure>[\d.]+)s$"
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


RULES = scenes.LayoutRules(PATTERN)


def headers(*rows, **columns):
    """A table of headers: frame and exposure time, or frame, exposure time and ISO, or also the time it was taken."""
    table = pd.DataFrame([(*row, 100.0)[:3] if len(row) < 4 else row[:3] for row in rows], columns=["frame", "exposure_s", "iso"])
    if any(len(row) == 4 for row in rows):
        table["taken_at"] = [row[3] for row in rows]
    return table.assign(path=table["frame"] + ".ARW", camera="c", height=10, width=10, **columns)


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
    for split, fraction in SHARES.items():
        assert abs(splits.count(split) / 4000 - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / 4000)
    assert splits[:100] == [scenes.split_of(name, "hash", SHARES, {}) for name in names[:100]]


def test_sid_numbering_and_choices_by_hand():
    by_digit = {
        name: scenes.split_of(name, "first_digit", SHARES, {"Sony_00009": "val"})
        for name in ("Sony_00001", "Sony_10003", "Sony_20001", "Sony_00009")
    }
    assert list(by_digit.values()) == ["train", "test", "val", "val"]


LISTS = {
    "Sony_train_list.txt": "./Sony/short/00001_00_0.04s.ARW ./Sony/long/00001_00_10s.ARW ISO200 F8\n",
    "Sony_test_list.txt": "./Sony/short/00002_00_0.1s.ARW ./Sony/long/00002_01_30s.ARW ISO200 F8\n\n",
}
SID = [
    ("Sony/short/00001_00_0.04s", 1), ("Sony/long/00001_00_10s", 1), ("Sony/short/00002_00_0.1s", 1), ("Sony/long/00002_00_10s", 1),
    ("Sony/long/00002_01_30s", 1), ("Fuji/short/20001_00_0.1s", 1), ("Fuji/long/20001_00_10s", 1),
]  # fmt: skip


def test_published_lists_win_over_the_numbering_and_name_the_pairs():
    table = scenes.LAYOUTS["sid"](headers(*SID), scenes.LayoutRules(PATTERN, lists=LISTS))
    split = dict(zip(table["frame"], table["split"], strict=True))
    assert split["Sony/short/00002_00_0.1s"] == split["Sony/long/00002_01_30s"] == "test"  # by number it would train
    assert (split["Sony/short/00001_00_0.04s"], split["Fuji/short/20001_00_0.1s"]) == ("train", "val")
    pairs, alone = scenes.pair(table)
    assert dict(zip(pairs["short"], pairs["long"], strict=True)) == {
        "Sony/short/00001_00_0.04s": "Sony/long/00001_00_10s", "Sony/short/00002_00_0.1s": "Sony/long/00002_01_30s",
        "Fuji/short/20001_00_0.1s": "Fuji/long/20001_00_10s",
    }  # fmt: skip
    assert pairs["exposure_ratio"].tolist() == [pytest.approx(250), 300, pytest.approx(100)]
    assert alone == []


def test_what_a_list_names_and_the_folder_lacks_is_known():
    there = {"Sony/short/00001_00_0.04s", "Sony/long/00001_00_10s"}
    assert scenes.listed_without_file(LISTS, there) == {"Sony_test_list.txt": ["Sony/short/00002_00_0.1s"]}
    assert scenes.listed_without_file(LISTS, there | {"Sony/short/00002_00_0.1s"}) == {}


def test_without_lists_the_digit_decides():
    table = scenes.LAYOUTS["sid"](headers(*SID, ("Sony/long/10003_00_10s", 1)), RULES)
    assert table["split"].tolist() == ["train"] * 5 + ["val"] * 2 + ["test"]


@pytest.mark.parametrize(("lists", "words"), [
    ({"Sony_list.txt": "a b"}, "must hold one of _train_list"),
    ({"Sony_val_list.txt": "./Sony/short/00001_00_0.04s.ARW"}, "line 1: expected"),
    (LISTS | {"Sony_val_list.txt": LISTS["Sony_train_list.txt"]}, "stands in two lists"),
])  # fmt: skip
def test_a_bad_list_is_named(lists, words):
    with pytest.raises(ValueError, match=words):
        scenes.LAYOUTS["sid"](headers(*SID), scenes.LayoutRules(PATTERN, lists=lists))


def eld_scene(camera="SonyA7S2", scene=1, missing=(), name="IMG_{:04d}"):
    iso = {1: 100, 2: 800, 3: 800, 4: 800, 5: 800}
    rows = []
    for number in range(1, 17):
        place = (number - 1) % 5 + 1
        light = {1: 1, 2: 1, 3: 10, 4: 100, 5: 200}[place]
        rows.append((f"{camera}/scene-{scene}/{name.format(number)}", 100 / (iso[place] * light), iso[place]))
    return [row for number, row in enumerate(rows, 1) if number not in missing]


def test_eld_pairs_each_noisy_image_with_the_nearest_reference():
    table = scenes.LAYOUTS["eld"](headers(*eld_scene()), RULES)
    pairs, alone = scenes.pair(table)
    numbers = {int(row.short[-4:]): (int(row.long[-4:]), row.exposure_ratio) for row in pairs.itertuples()}
    assert {short: long for short, (long, _) in numbers.items()} == {4: 6, 5: 6, 9: 11, 10: 11, 14: 16, 15: 16}
    # the reference is taken at base ISO: exposure times alone would say 800 and 1600
    assert {short: ratio for short, (_, ratio) in numbers.items()} == {
        number: pytest.approx(100 if number in (4, 9, 14) else 200) for number in numbers
    }
    assert (set(table["split"]), alone, set(pairs["scene"])) == ({"test"}, [], {"SonyA7S2_scene-1"})
    assert (table["data_type"] == "unused").sum() == 6


def test_eld_names_as_the_cameras_gave_them_count_by_order():
    renamed, given = (scenes.pair(scenes.LAYOUTS["eld"](headers(*eld_scene(name=name)), RULES))[0] for name in ("IMG_{:04d}", "DSC{:05d}"))
    assert [short[-2:] for short in renamed["short"]] == [short[-2:] for short in given["short"]]
    assert [long[-2:] for long in renamed["long"]] == [long[-2:] for long in given["long"]]


def test_a_missing_eld_reference_is_reported_and_no_other_taken():
    pairs, alone = scenes.pair(scenes.LAYOUTS["eld"](headers(*eld_scene(missing=(6,))), RULES))
    assert len(pairs) == 4
    assert alone[0]["reason"] == "its long exposure SonyA7S2/scene-1/IMG_0006 is not there or cannot be read"


BURSTS = [
    ("walk/a", 0.01, 100.0, "2026-05-01T20:00:00"), ("walk/b", 4.0, 100.0, "2026-05-01T20:00:01"),
    ("walk/c", 0.01, 100.0, "2026-05-01T20:00:10"), ("walk/d", 1.0, 100.0, "2026-05-01T20:00:40"),
    ("walk/e", 0.1, 100.0, "2026-05-01T20:00:42"), ("walk/f", 9.0, 100.0, None), ("walk/00001_00_5s", 5.0, 100.0, "2026-05-01T20:00:43"),
]  # fmt: skip


def test_bursts_are_told_by_time():
    """b ends at 20:00:05, so c follows after a pause of 5 s and d after 30 s."""
    table = scenes.LAYOUTS["folder"](headers(*BURSTS), scenes.LayoutRules(PATTERN, gap_s=6))
    assert table["scene"].tolist() == ["walk_a", "walk_a", "walk_a", "walk_d", "walk_d", "walk", "walk_00001"]
    pairs, _ = scenes.pair(table.assign(split="train"))
    assert dict(zip(pairs["short"], pairs["long"], strict=True)) == {"walk/a": "walk/b", "walk/c": "walk/b", "walk/e": "walk/d"}
    shorter = scenes.LAYOUTS["folder"](headers(*BURSTS), scenes.LayoutRules(PATTERN, gap_s=4))
    assert shorter["scene"].tolist()[:3] == ["walk_a", "walk_a", "walk_c"]


def test_another_framing_is_another_scene_and_missing_times_change_nothing():
    rules = scenes.LayoutRules(PATTERN, gap_s=60)
    focal = [24, 50, 24, 24, 24, 24, 24]
    assert scenes.LAYOUTS["folder"](headers(*BURSTS, focal_mm=focal), rules)["scene"].tolist()[:3] == ["walk_a", "walk_b", "walk_a"]
    without = headers(*[row[:3] for row in BURSTS])
    assert set(scenes.LAYOUTS["folder"](without, rules)["scene"]) == {"walk", "walk_00001"}
    assert set(scenes.LAYOUTS["folder"](headers(*BURSTS), RULES)["scene"]) == {"walk", "walk_00001"}


def test_excluded_scenes_are_listed_with_the_reason():
    pairs, _ = scenes.pair(frames(("S/long/00001_00_10s", 10), ("S/short/00001_00_1s", 1), ("S/long/2_s", 9), ("S/short/2_s", 1)))
    kept, alone = scenes.exclude(pairs, {"S/short/00001_00_1s": "x.ARW"}, {"S_00001": "misaligned"})
    assert kept["scene"].tolist() == ["S"]
    assert alone == [{"file": "x.ARW", "reason": "scene S_00001 is excluded: misaligned"}]


def test_flats_and_darks_are_no_exposures_of_a_scene():
    """A flat may be exposed longer than anything else in its folder: that makes no picture short."""
    table = pd.DataFrame({"frame": ["a", "b", "flats/c", "darks/d"], "scene": "scene", "exposure_s": [1.0, 10.0, 60.0, 60.0]})
    assert scenes.data_types(table).tolist() == ["short", "long", "flat", "dark"]
