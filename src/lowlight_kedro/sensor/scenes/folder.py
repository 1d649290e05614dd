"""Any folders of raws: scenes by name, else by folder, else by time."""

import re
from collections.abc import Iterator

import pandas as pd

from lowlight_kedro.sensor.scenes.pairs import DATA_TYPES, LayoutRules, data_types

FRAMING = ("camera", "height", "width", "orientation", "focal_mm")


def scene_of(frame: str, pattern: str) -> tuple[str, float]:
    """Scene and exposure time that the name of `frame` (a path without suffix) tells.

    Args:
        frame: e.g. `"Sony/short/00001_00_0.1s"`.
        pattern: regular expression for the last part, with a group `scene` and optionally `exposure`.

    Returns:
        A scene such as `"Sony_00001"`, folders `long` and `short` left out, and seconds, nan where the name
        does not say. A name that does not match belongs to the scene of its folder.
    """
    *folders, stem = frame.split("/")
    folders = [folder for folder in folders if folder.lower() not in DATA_TYPES]
    found = re.match(pattern, stem)
    groups = found.groupdict() if found else {}
    scene = "_".join([*folders, *([groups["scene"]] if found else [])]) or "scene"
    return scene, float(groups.get("exposure") or "nan")


def named(frames: pd.DataFrame, pattern: str) -> pd.DataFrame:
    """The frames with `scene`, and with the exposure time of their name where it tells one."""
    told = [scene_of(frame, pattern) for frame in frames["frame"]]
    seconds = pd.Series([exposure for _, exposure in told], index=frames.index)
    return frames.assign(scene=[scene for scene, _ in told], exposure_s=seconds.fillna(frames["exposure_s"]), split="", partner="")


def _runs(group: pd.DataFrame, gap_s: float) -> Iterator[pd.DataFrame]:
    """Runs of frames that follow each other with at most `gap_s` between the end of one and the start of the next."""
    group = group.sort_values(["taken", "frame"])
    end = group["taken"] + pd.to_timedelta(group["exposure_s"].fillna(0), unit="s")
    pause = (group["taken"] - end.cummax().shift()).dt.total_seconds()
    for _, run in group.groupby((pause > gap_s).cumsum()):
        yield run


def by_time(frames: pd.DataFrame, gap_s: float) -> pd.Series:
    """Scene per frame: frames of one scene (folder) and one framing that were taken in one go.

    Args:
        frames: columns frame, scene, exposure_s, camera, height, width; taken_at (ISO 8601 or missing), orientation and
            focal_mm where known.
        gap_s: seconds without a picture that end a burst or bracket.

    Returns:
        Scenes named after the first frame of their run. A frame without a time keeps its scene. Header times are
        whole seconds, so a gap below 1 s cannot be told.
    """
    scene = frames["scene"].copy()
    if "taken_at" not in frames:
        return scene
    timed = frames.assign(taken=pd.to_datetime(frames["taken_at"], errors="coerce", format="ISO8601", utc=True)).dropna(subset="taken")
    framing = ["scene", *(column for column in FRAMING if column in frames)]
    for _, group in timed.groupby(framing, dropna=False):
        for run in _runs(group, gap_s):
            scene[run.index] = "_".join(part for part in run["frame"].iloc[0].split("/") if part.lower() not in DATA_TYPES)
    return scene


def folder(frames: pd.DataFrame, rules: LayoutRules) -> pd.DataFrame:
    """Scenes by the pattern; names that tell nothing by folder, and with `gap_s` by time and framing within it."""
    frames = named(frames, rules.pattern)
    if rules.gap_s is not None:
        silent = ~frames["frame"].str.split("/").str[-1].str.match(rules.pattern)
        frames.loc[silent, "scene"] = by_time(frames[silent], rules.gap_s)
    return frames.assign(data_type=data_types(frames))
