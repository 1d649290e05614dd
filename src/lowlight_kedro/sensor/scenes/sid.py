"""See-in-the-Dark (Chen et al. 2018) as published: {Sony,Fuji}/{short,long}, and its lists of pairs."""

from collections.abc import Mapping
from pathlib import PurePosixPath

import pandas as pd

from lowlight_kedro.sensor.scenes.folder import named
from lowlight_kedro.sensor.scenes.pairs import data_types, split_of
from lowlight_kedro.sensor.scenes.rules import LayoutRules

SPLITS = ("train", "val", "test")


def listed_pairs(lists: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Short frame: (long frame, split), of lists such as `Sony_train_list.txt`.

    Args:
        lists: text by path. Lines are `./Sony/short/10003_00_0.04s.ARW ./Sony/long/10003_00_10s.ARW ISO200 F9`,
            paths relative to the list.

    Raises:
        ValueError: the name tells no split, a line has no two paths, or two lists disagree.
    """
    pairs: dict[str, tuple[str, str]] = {}
    for name, text in lists.items():
        split = next((split for split in SPLITS if f"_{split}_list" in name), None)
        if split is None:
            raise ValueError(f"{name}: the name of a list must hold one of _train_list, _val_list, _test_list")
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            if len(words) < 2:
                raise ValueError(f"{name}, line {number}: expected `short long [ISO F]`, got {line!r}")
            short, long = ((PurePosixPath(name).parent / word).with_suffix("").as_posix() for word in words[:2])
            if pairs.setdefault(short, (long, split)) != (long, split):
                raise ValueError(f"{name}, line {number}: {short} stands in two lists with different pair or split; keep one")
    return pairs


def sid(frames: pd.DataFrame, rules: LayoutRules) -> pd.DataFrame:
    """Scene and exposure time by name; pair and split by the published lists, else by folder and first digit."""
    frames = named(frames, rules.pattern)
    pairs = listed_pairs(rules.lists)
    splits = {name: split for short, (long, split) in pairs.items() for name in (short, long)}
    by_digit = [split_of(scene, "first_digit", {}, {}) for scene in frames["scene"]]
    return frames.assign(
        data_type=data_types(frames),
        split=frames["frame"].map(splits).fillna(pd.Series(by_digit, index=frames.index, dtype=object)),
        partner=frames["frame"].map({short: long for short, (long, _) in pairs.items()}).fillna(""),
    )
