"""Nodes of the validation pipeline."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lowlight_kedro.diffusion.scaling import propose
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.pipelines.validation.options import ValidationOptions
from lowlight_kedro.sensor import tile_checks
from lowlight_kedro.sensor.metadata import clean_verdict, fingerprint, list_tiles, tile_files
from lowlight_kedro.sensor.tile_checks import Problem
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

logger = logging.getLogger(__name__)

Tiles = Mapping[str, Callable[[], NDArray]]
SIGNAL_QUANTILES = (0.05, 0.5, 0.95)


class ValidationError(ValueError):
    """The tiles are not fit for training; the message lists why."""


def _partition_of(tile: Mapping[str, Any], tiles: Tiles) -> str | None:
    return next((name for name in (file.removesuffix(".pt") for file in tile_files(tile)) if name in tiles), None)


def _check_tile(tile: Mapping[str, Any], load: Callable[[], NDArray] | None, options: ValidationOptions) -> tuple[dict, list[Problem]]:
    """One row of the table, and the problems of one tile."""
    clean, rule = clean_verdict(tile)
    name = tile["tile_id"]
    row = {"tile_id": name, "split": tile.get("split"), "clean": clean, "rule": rule}
    if load is None:
        return row, [Problem(name, "missing", f"no file for it (pt_path {tile.get('pt_path')})")]
    try:
        pixels = load()
    except Exception as error:  # noqa: BLE001 - whatever a dataset raises is the tile's problem, not the run's
        return row, [Problem(name, "unreadable", str(error))]
    problems = tile_checks.check_form(name, pixels, (3, options.image_size, options.image_size))
    if not problems:
        problems = tile_checks.check_content(name, pixels, min_std=options.min_std, max_saturated=options.max_saturated)
        row |= tile_checks.statistics(pixels) | {"digest": tile_checks.digest(pixels)}
    return row, problems


def check_tiles(tile_metadata: dict, tiles: Tiles, options: ValidationOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every tile; a table of verdicts and a table of problems (tile_id, kind, message)."""
    listed = list_tiles(tile_metadata)
    found = {tile["tile_id"]: _partition_of(tile, tiles) for tile in listed}
    rows, problems = [], tile_checks.check_names(t["tile_id"] for t in listed) + tile_checks.check_splits(listed)
    for tile in tqdm(listed, desc="checking tiles", unit="tile"):
        name = found[tile["tile_id"]]
        row, wrong = _check_tile(tile, tiles[name] if name else None, options)
        rows.append(row)
        problems += wrong
    extra = sorted(set(tiles) - set(found.values()))
    problems += [Problem(name, "extra", "a file that the metadata does not list") for name in extra]
    table = pd.DataFrame(rows)
    if "digest" in table:
        digests = table.dropna(subset="digest").drop_duplicates("tile_id").set_index("tile_id")["digest"]
        problems += tile_checks.check_duplicates(digests.to_dict())
    if not any(row["clean"] and row["split"] in ("train", None) for row in rows):
        problems.append(Problem("all", "clean", f"none of the {len(rows)} tiles is a clean tile of split train"))
    return table, pd.DataFrame([vars(problem) for problem in problems], columns=["tile_id", "kind", "message"])


def report_tiles(tile_metadata: dict, table: pd.DataFrame, problems: pd.DataFrame, options: ValidationOptions) -> dict[str, Any]:
    """Counts and the verdict. `dropped` are tiles that training leaves out, where `on_content` is `drop`."""
    content = problems["kind"].isin(tile_checks.CONTENT)
    stops = problems if options.on_content == "stop" else problems[~content]
    dropped = [] if options.on_content == "stop" else sorted(set(problems[content]["tile_id"]))
    return {
        "passed": stops.empty,
        "fingerprint": fingerprint(tile_metadata),
        "tiles": len(table),
        "clean": int(table["clean"].sum()),
        "decided_by": table["rule"].value_counts().to_dict(),
        "problems": problems["kind"].value_counts().to_dict(),
        "stopping": stops.to_dict("records"),
        "dropped": dropped,
    }


def require_valid(report: dict[str, Any]) -> dict[str, Any]:
    """Hand the report on, or stop the run.

    Raises:
        ValidationError: lists every stopping problem (the first 20; all are in the report).
    """
    if not report["passed"]:
        lines = [f"  {problem['tile_id']}: {problem['kind']}: {problem['message']}" for problem in report["stopping"]]
        more = [f"  ... and {len(lines) - 20} more, see the validation report"] if len(lines) > 20 else []
        raise ValidationError("\n".join([f"{len(lines)} problems with the tiles; training would not be sound:", *lines[:20], *more]))
    logger.info("%d tiles checked, %d clean, %d left out", report["tiles"], report["clean"], len(report["dropped"]))
    return {"fingerprint": report["fingerprint"], "dropped": report["dropped"]}


def _noise_levels(metadata: dict, signals: NDArray, sensor: SensorOptions) -> list[float]:
    """Standard deviations, tile domain, of the short exposures at typical signals; unknown cameras are left out."""
    files = {file["frame"]: file for file in metadata.get("files", []) if "frame" in file}
    levels: list[float] = []
    for pair in metadata.get("pairs", []):
        file = files.get(pair["long"])
        if file is None:
            continue
        try:
            noise, _ = sensor.noise_model(file["camera"], pair["iso"], file["white_level"] - file["black_level"])
        except ValueError as error:
            logger.warning("no noise level for %s: %s", pair["short"], error)
            continue
        gains = pair["exposure_ratio"] * np.asarray(file["white_balance"])[:, None]
        levels += (TILE_SLOPE * gains * np.sqrt(noise.variance(signals / gains))).ravel().tolist()
    return levels


def measure_tiles(tile_metadata: dict, table: pd.DataFrame, validated: dict, sensor: SensorOptions) -> dict[str, Any]:
    """Mean and standard deviation of the clean training tiles, and the constants they suggest."""
    table = table[table["clean"] & ((table["split"] == "train") | table["split"].isna()) & ~table["tile_id"].isin(validated["dropped"])]
    mean = float(table["mean"].mean())
    std = float(np.sqrt((table["std"] ** 2 + table["mean"] ** 2).mean() - mean**2))
    signals = from_tile_domain(np.quantile(table["mean"], SIGNAL_QUANTILES))
    proposal = propose(mean, std, _noise_levels(tile_metadata, signals, sensor))
    logger.info("proposed: %s", ", ".join(f"{key}={value:.4g}" for key, value in proposal.items()))
    return validated | proposal
