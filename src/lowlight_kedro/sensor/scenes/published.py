"""Data sets in their published folders.

See-in-the-Dark (Chen et al. 2018): {Sony,Fuji}/{short,long}, and its lists of pairs.
ELD (Wei et al. 2020): camera/scene-N/IMG_0001 to IMG_0016, all for testing.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

import pandas as pd

from lowlight_kedro.sensor.scenes.folder import named
from lowlight_kedro.sensor.scenes.pairs import LayoutRules, data_types, split_of

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


def listed_without_file(lists: Mapping[str, str], frames: Collection[str]) -> dict[str, list[str]]:
    """Short exposures that a list names and that are not among `frames`, by list."""
    missing = {name: [short for short in listed_pairs({name: text}) if short not in frames] for name, text in lists.items()}
    return {name: shorts for name, shorts in missing.items() if shorts}


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


REFERENCES = (1, 6, 11, 16)
NOISY = (4, 5, 9, 10, 14, 15)  # x100 and x200 at three ISOs; 2, 3, 7, 8, 12, 13 are x1 and x10, which the paper leaves out
PER_SCENE = 16


def _numbers(stems: pd.Series) -> pd.Series:
    """Number of each image of one scene: of `IMG_0004`, else its place among 16 sorted names, else 0.

    The place is what ELD's own renaming script makes of the names as the cameras gave them.
    """
    found = stems.str.extract(r"^IMG_(\d{4})$", flags=re.IGNORECASE)[0]
    if found.notna().all():
        return found.astype(int)
    return stems.rank().astype(int) if len(stems) == PER_SCENE else stems.map(lambda _: 0)


def _kind(number: int) -> str:
    return "long" if number in REFERENCES else "short" if number in NOISY else "unused"


def eld(frames: pd.DataFrame, rules: LayoutRules) -> pd.DataFrame:
    """Each noisy image with the nearest reference; images of factors x1 and x10, and strangers, are `unused`."""
    folders, stems = (frames["frame"].str.rpartition("/")[part] for part in (0, 2))
    numbers = stems.groupby(folders).transform(_numbers)
    files = dict(zip(zip(folders, numbers, strict=True), frames["frame"], strict=True))
    nearest = [min(REFERENCES, key=lambda reference: abs(reference - number)) for number in numbers]
    kinds = numbers.map(_kind)
    # a reference that is missing is named as it would be called, so that the report tells which
    partners = [files.get((place, number), f"{place}/IMG_{number:04d}") for place, number in zip(folders, nearest, strict=True)]
    return frames.assign(
        scene=folders.str.replace("/", "_"), data_type=kinds, split="test",
        partner=pd.Series(partners, index=frames.index).where(kinds == "short", ""),
    )  # fmt: skip
