"""Frames to scenes, pairs and splits: what the names and headers of raws say about each other."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

MAX_RATIO = 300.0
DATA_TYPES = ("long", "short")
PAIR_COLUMNS = ("short", "long", "scene", "split", "exposure_ratio", "iso", "camera")


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


def data_types(frames: pd.DataFrame) -> pd.Series:
    """`long` or `short` per frame: its folder where that is so called, else long = longest of its scene."""
    folder = frames["frame"].str.split("/").map(lambda parts: next((p.lower() for p in parts if p.lower() in DATA_TYPES), None))
    longest = frames.groupby("scene")["exposure_s"].transform("max")
    by_time = (frames["exposure_s"] < longest).map({True: "short", False: "long"})
    return folder.where(folder.notna(), by_time)


def split_of(scene: str, rule: str, shares: Mapping[Any, float], chosen: Mapping[str, Any]) -> str:
    """`train`, `val` or `test`, for the whole scene.

    Args:
        rule: `first_digit`, as SID numbers its scenes (0 train, 1 test, 2 val), or `hash`, which puts a scene
            by its name alone, so that later scenes never move earlier ones.
        shares: share of scenes per split, for `hash`.
        chosen: splits decided by hand; they win.
    """
    if scene in chosen:
        return chosen[scene]
    if rule == "first_digit":
        digit = next((character for character in scene.split("_")[-1] if character.isdigit()), "0")
        return {"1": "test", "2": "val"}.get(digit, "train")
    position = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") / 2**64 * sum(shares.values())
    for split, share in shares.items():
        if position < share:
            return split
        position -= share
    return next(iter(shares))


def pair(frames: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Each short exposure with the longest long exposure of its scene.

    Args:
        frames: columns frame, path, scene, split, data_type, exposure_s, iso, camera.

    Returns:
        Pairs (short, long, scene, split, exposure_ratio, iso, camera), the ratio capped at 300
        as in See-in-the-Dark; and the short exposures left alone, each with the reason.
    """
    rows, alone = [], []
    longs = frames[frames["data_type"] == "long"].sort_values("exposure_s", ascending=False).groupby("scene").first()
    for short in frames[frames["data_type"] == "short"].itertuples():
        if short.scene not in longs.index:
            alone.append({"file": short.path, "reason": f"no long exposure of scene {short.scene}"})
            continue
        long = longs.loc[short.scene]
        ratio = long["exposure_s"] / short.exposure_s
        if not ratio >= 1:
            alone.append({"file": short.path, "reason": f"exposure ratio to {long['frame']} is {ratio:g}, expected at least 1"})
            continue
        rows.append({
            "short": short.frame, "long": long["frame"], "scene": short.scene, "split": short.split,
            "exposure_ratio": min(ratio, MAX_RATIO), "iso": short.iso, "camera": short.camera,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS)), alone
