"""Splits by scene, and short exposures with their long ones; the rules that every layout is given."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class LayoutRules:
    """Parameters of all layouts; each uses those that concern it.

    Attributes:
        pattern: regular expression for the last part of a frame's name, with a group `scene` and optionally `exposure`.
        gap_s: seconds of pause that end a burst, for raws whose names tell no scene; None = one scene per folder.
        lists: published lists of pairs, text by path relative to the raw folder, e.g. `Sony_train_list.txt`.
    """

    pattern: str
    gap_s: float | None = None
    lists: Mapping[str, str] = field(default_factory=dict)


MAX_RATIO = 300.0
DATA_TYPES = {"long": "long", "short": "short", "flats": "flat", "darks": "dark"}  # by the name of a folder
PAIR_COLUMNS = ("short", "long", "scene", "split", "exposure_ratio", "iso", "camera")

Alone = list[dict[str, str]]


def folder_type(frame: str) -> str | None:
    """`long`, `short`, `flat` or `dark`, where a folder in the path `frame` is called so (long, short, flats, darks)."""
    return next((DATA_TYPES[part.lower()] for part in frame.split("/")[:-1] if part.lower() in DATA_TYPES), None)


def data_types(frames: pd.DataFrame) -> pd.Series:
    """`long` or `short` per frame (`flat`, `dark`: for calibration): by its folder's name, else long = longest of its scene."""
    named = frames["frame"].map(folder_type)
    longest = frames["exposure_s"].where(~named.isin(["flat", "dark"])).groupby(frames["scene"]).transform("max")
    by_time = (frames["exposure_s"] < longest).map({True: "short", False: "long"})
    return named.where(named.notna(), by_time)


def split_of(scene: str, rule: str, fractions: Mapping[Any, float], chosen: Mapping[str, Any]) -> str:
    """`train`, `val` or `test`, for the whole scene.

    Args:
        rule: `first_digit`, as SID numbers its scenes (0 train, 1 test, 2 val), or `hash`, which puts a scene
            by its name alone, so that later scenes never move earlier ones.
        fractions: of the scenes per split, for `hash`.
        chosen: splits decided by hand; they win.
    """
    if scene in chosen:
        return chosen[scene]
    if rule == "first_digit":
        digit = next((character for character in scene.split("_")[-1] if character.isdigit()), "0")
        return {"1": "test", "2": "val"}.get(digit, "train")
    position = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") / 2**64 * sum(fractions.values())
    for split, fraction in fractions.items():
        if position < fraction:
            return split
        position -= fraction
    return next(iter(fractions))


def signal_ratio(long: Any, short: Any) -> float:
    """How much more signal the long exposure holds by its header: exposure time times ISO (as ELD counts).

    See-in-the-Dark takes both at one ISO; ELD takes the reference at base ISO. An unknown ISO counts as equal.
    """
    iso = long.iso / short.iso
    return float(long.exposure_s / short.exposure_s * (iso if math.isfinite(iso) and iso > 0 else 1.0))


def _partner(short: Any, by_name: Mapping[str, Any], longest: Mapping[str, Any]) -> tuple[Any, str]:
    """The long frame of `short`, or None and the reason."""
    named = getattr(short, "partner", "")
    if isinstance(named, str) and named:  # empty becomes nan in a CSV
        return by_name.get(named), f"its long exposure {named} is not there or cannot be read"
    return longest.get(short.scene), f"no long exposure of scene {short.scene}"


def pair(frames: pd.DataFrame) -> tuple[pd.DataFrame, Alone]:
    """Each short exposure with its `partner`, or where none is named with the longest long exposure of its scene.

    Args:
        frames: columns frame, path, scene, split, data_type, exposure_s, iso, camera, and partner if known.

    Returns:
        Pairs (short, long, scene, split, exposure_ratio, iso, camera), the ratio `signal_ratio` capped at 300
        as in See-in-the-Dark; and the short exposures left alone, each with the reason.
    """
    rows, alone = [], []
    by_name: dict[Any, Any] = {row.frame: row for row in frames.itertuples()}
    longs = frames[frames["data_type"] == "long"].sort_values("exposure_s", kind="stable")
    longest: dict[Any, Any] = {row.scene: row for row in longs.itertuples()}  # the last one stays
    for short in frames[frames["data_type"] == "short"].itertuples():
        long, missing = _partner(short, by_name, longest)
        if long is None:
            alone.append({"file": short.path, "reason": missing})
            continue
        ratio = signal_ratio(long, short)
        if not ratio >= 1:
            alone.append({"file": short.path, "reason": f"exposure ratio to {long.frame} is {ratio:g}, expected at least 1"})
            continue
        rows.append({
            "short": short.frame, "long": long.frame, "scene": short.scene, "split": short.split,
            "exposure_ratio": min(ratio, MAX_RATIO), "iso": short.iso, "camera": short.camera,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS)), alone


def exclude(pairs: pd.DataFrame, paths: Mapping[str, str], scenes: Mapping[str, str]) -> tuple[pd.DataFrame, Alone]:
    """`pairs` without those of `scenes` (scene: reason), and these, listed by the path of the short frame."""
    bad = pairs["scene"].isin(list(scenes))
    alone = [{"file": paths[row.short], "reason": f"scene {row.scene} is excluded: {scenes[row.scene]}"} for row in pairs[bad].itertuples()]
    return pairs[~bad].reset_index(drop=True), alone
