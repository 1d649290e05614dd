"""Frames to scenes, pairs and splits: what names, headers and published lists of raws say about each other.

See-in-the-Dark (Chen et al. 2018): {Sony,Fuji}/{short,long}, and its lists of pairs.
ELD (Wei et al. 2020): camera/scene-N/IMG_0001 to IMG_0016, all for testing.
Any other folders of raws: scenes by name, else by folder, else by time.

"""

import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
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
    parsed = [scene_of(frame, pattern) for frame in frames["frame"]]
    seconds = pd.Series([exposure for _, exposure in parsed], index=frames.index)
    return frames.assign(scene=[scene for scene, _ in parsed], exposure_s=seconds.fillna(frames["exposure_s"]), split="", partner="")


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


Layout = Callable[[pd.DataFrame, LayoutRules], pd.DataFrame]

# Each takes the table of headers (frame, path, exposure_s, iso, camera, height, width, and taken_at where known) and
# returns it with scene, data_type (long, short or unused), split ("" = by rule) and partner ("" = longest of the scene).
LAYOUTS: dict[str, Layout] = {"eld": eld, "folder": folder, "sid": sid}
