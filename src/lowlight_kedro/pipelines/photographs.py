"""Tiles from finished photographs, where there are no clean raws; run by name.

photographs -> linear camera RGB tiles -> metadata and index, as preprocessing makes them of raws
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from kedro.pipeline import Node, Pipeline
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lowlight_kedro.bounds import Count, Fraction, NotNegative, Positive
from lowlight_kedro.datasets.photographs import Photograph
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions, Options
from lowlight_kedro.pipelines.preprocessing.nodes import describe_files, pack_tiles
from lowlight_kedro.pipelines.preprocessing.options import Split
from lowlight_kedro.sensor import tiles
from lowlight_kedro.sensor.scenes import split_of
from lowlight_kedro.sensor.simulate import clean_light, with_lateral_colour, with_points

logger = logging.getLogger(__name__)


Matrix = Annotated[list[float], Field(min_length=9, max_length=9)]


class PointOptions(Options):
    """Stars and lamps that are put upon some of the tiles."""

    fraction: Fraction
    count: tuple[Count, Count]
    fwhm: tuple[Positive, Positive]
    peak: tuple[Positive, Positive]


class PhotographOptions(Options):
    """All of `params:photographs`."""

    size: Annotated[int, Field(ge=16)]
    stride: Count
    shrink: dict[str, Count]
    exposures: tuple[float, float]
    min_std: NotNegative
    lateral_colour: NotNegative
    points: PointOptions
    cameras: Annotated[dict[str, Matrix], Field(min_length=1)]
    fractions: dict[Split, NotNegative]
    splits: dict[str, Split]
    seed: int

    @field_validator("exposures")
    @classmethod
    def _ordered(cls, exposures: tuple[float, float]) -> tuple[float, float]:
        if not 0 < exposures[0] <= exposures[1] <= 1:
            raise ValueError(f"exposures must be 0 < low <= high <= 1, got {list(exposures)}")
        return exposures

    def tile_sides(self) -> dict[str, int]:
        """See `Options`."""
        return {"size": self.size}

    def factor(self, name: str) -> int:
        """How much the photograph is shrunk: of the first pattern that fits its name, else 1."""
        return next((factor for pattern, factor in self.shrink.items() if fnmatch(name, pattern)), 1)


def _draws(name: str, seed: int) -> np.random.Generator:
    """Of one photograph, whatever the others are."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big"))


def _exposed(light: NDArray, options: PhotographOptions, rng: np.random.Generator) -> Iterator[tuple[tiles.Position, NDArray]]:
    """The tiles of a photograph, some with points of light, each under its own exposure, drawn log-uniformly; flat ones are left out."""
    low, high = np.log(options.exposures)
    for place, pixels in tiles.cut(light, options.size, options.stride):
        exposure = np.float32(np.exp(rng.uniform(low, high)))
        points = options.points
        if points.fraction and rng.uniform() < points.fraction:
            pixels = with_points(pixels, int(rng.integers(points.count[0], points.count[1] + 1)), points.fwhm, points.peak, rng)
        if pixels.std() >= options.min_std:
            yield place, pixels * exposure


def _cut_photograph(name: str, photograph: Photograph, options: PhotographOptions) -> dict[str, Any]:
    rng = _draws(name, options.seed)
    camera = sorted(options.cameras)[rng.integers(len(options.cameras))]
    light = clean_light(photograph(), options.factor(name), np.asarray(options.cameras[camera]))
    if options.lateral_colour and rng.uniform() < 0.5:
        light = with_lateral_colour(light, *rng.uniform(-options.lateral_colour, options.lateral_colour, 2))
    stem = quote(name, safe=" ")  # one folder for all of them, and no two names the same
    files, records = pack_tiles(_exposed(light, options, rng), stem, "long", "stack")
    described = {
        "frame": name, "path": photograph.path.name, "scene_id": name, "split": split_of(name, "hash", options.fractions, options.splits),
        "data_type": "long", "is_clean": True, "camera": camera, "shrink": options.factor(name), "tiles": records,
    }  # fmt: skip
    return {"tiles": files, "record": described}


def cut_photographs(photographs: dict[str, Photograph], options: PhotographOptions, executor: ExecutorOptions) -> Jobs:
    """For each photograph the job to linearise and cut it."""
    settings = options.model_dump()
    jobs = [
        Job(name, "photographs", partial(_cut_photograph, name, source), [source], [settings, name]) for name, source in photographs.items()
    ]
    return Jobs(jobs, options, executor.build(), "tiles", "photograph")


def describe_photographs(
    photograph_tiles: dict[str, dict[str, Callable[[], dict]]], options: PhotographOptions
) -> tuple[dict, pd.DataFrame, dict]:
    """Metadata of all tiles, the same as a table, and a report with the photographs of each split and those that failed.

    Raises:
        ValueError: no photograph gave a tile.
    """
    files, index, failed = describe_files((name, parts["record"]()) for name, parts in photograph_tiles.items())
    if index.empty:
        reason = f"; the first that could not be cut: {failed[0]['reason']}" if failed else ""
        raise ValueError(
            f"zero tiles: of {len(photograph_tiles)} photographs none is as large as photographs.size={options.size} and varies by "
            f"photographs.min_std={options.min_std}{reason}"
        )
    splits = {str(split): sorted(group["frame"].unique()) for split, group in index.groupby("split")}
    if "val" not in splits:
        logger.warning(
            "none of the %d photographs is for validation, so a training will show no validation figures; add photographs, or name one by "
            '--params "photographs.splits={%s: val}"', len(photograph_tiles), splits["train"][0] if "train" in splits else "NAME",
        )  # fmt: skip
    made_by = {"photographs": options.model_dump(mode="json")}
    metadata = {"version": 1, "tile_size": options.size, "made_by": made_by, "pairs": [], "files": files}
    return metadata, index, {"tiles": len(index), "photographs": splits, "skipped": failed}


def create_pipeline() -> Pipeline:
    """The photographs pipeline."""
    return Pipeline([
        Node(cut_photographs, ["photographs", "params:photographs", "params:executor"], "photograph_tiles", name="cut_photographs"),
        Node(
            describe_photographs, ["photograph_tiles", "params:photographs"],
            ["tiles", "tile_index", "preprocessing_report"], name="describe_photographs",
        ),
    ])  # fmt: skip
