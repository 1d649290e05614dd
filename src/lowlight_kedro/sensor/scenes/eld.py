"""ELD (Wei et al. 2020): camera/scene-N/IMG_0001 to IMG_0016, all for testing."""

import re

import pandas as pd

from lowlight_kedro.sensor.scenes.rules import LayoutRules

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
