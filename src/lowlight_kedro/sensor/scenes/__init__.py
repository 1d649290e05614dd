"""Frames to scenes, pairs and splits: what names, headers and published lists of raws say about each other."""

from collections.abc import Callable

import pandas as pd

from lowlight_kedro.sensor.scenes.folder import folder, scene_of
from lowlight_kedro.sensor.scenes.pairs import PAIR_COLUMNS, LayoutRules, data_types, exclude, pair, split_of
from lowlight_kedro.sensor.scenes.published import eld, listed_without_file, sid

Layout = Callable[[pd.DataFrame, LayoutRules], pd.DataFrame]

# Each takes the table of headers (frame, path, exposure_s, iso, camera, height, width, and taken_at where known) and
# returns it with scene, data_type (long, short or unused), split ("" = by rule) and partner ("" = longest of the scene).
LAYOUTS: dict[str, Layout] = {"eld": eld, "folder": folder, "sid": sid}

__all__ = [
    "LAYOUTS", "PAIR_COLUMNS", "Layout", "LayoutRules", "data_types", "exclude", "listed_without_file", "pair", "scene_of", "split_of",
]  # fmt: skip
