"""Are the tiles fit for training? Nothing trains before this pipeline says yes.

tiles -> verdicts -> report -> statistics, or stop
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from kedro.pipeline import Node, Pipeline
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from lowlight_kedro.bounds import Fraction, NotNegative
from lowlight_kedro.datasets.edm_pt import TileSet
from lowlight_kedro.datasets.stacks import decode, encode
from lowlight_kedro.datasets.tiles import TileFile, TileFolder
from lowlight_kedro.diffusion.scaling import propose
from lowlight_kedro.jobs import no_bars
from lowlight_kedro.pipelines.options import Options, SensorOptions
from lowlight_kedro.sensor import tile_metadata
from lowlight_kedro.sensor.noise_sources import Sources
from lowlight_kedro.sensor.tile_metadata import Problem, clean_verdicts, fingerprint, tile_files, tile_table
from lowlight_kedro.sensor.tiles import TILE_SLOPE, from_tile_domain

logger = logging.getLogger(__name__)


class ValidationOptions(Options):
    """All of `params:validation`."""

    image_size: Annotated[int, Field(ge=16)]
    min_std: NotNegative
    max_saturated: Fraction
    on_content: Literal["stop", "drop"]

    def tile_sides(self) -> dict[str, int]:
        """See `Options`."""
        return {"image_size": self.image_size}


SIGNAL_QUANTILES = (0.05, 0.5, 0.95)
REPAIR = (
    "run the pipeline that made them again (preprocessing, photographs or import_tiles): it makes damaged files anew; then `kedro run "
    "--pipelines validation`"
)
WANTED = "expected one or more: put clean raws into that split and run preprocessing again"


class ValidationError(ValueError):
    """The tiles are not fit for training; the message lists why."""


def _open(file: TileFile | None, wanted: str, tiles: pd.DataFrame, options: ValidationOptions) -> tuple[NDArray | None, list[Problem]]:
    """What is in a file, and its problems as a whole, under the name of its one tile or of the stack."""
    first, stacked = tiles["tile_id"].iloc[0], tiles["stack"].notna().iloc[0]
    name = wanted if stacked else first
    needed = f"; {len(tiles)} tiles need it, the first: {first}" if stacked else f" (pt_path {wanted})"
    if file is None:
        return None, [Problem(name, "missing", f"no file for it{needed}")]
    try:
        content = file()
    except Exception as error:  # noqa: BLE001 - whatever a dataset raises is the file's problem, not the run's
        return None, [Problem(name, "unreadable", str(error))]
    problems = tile_metadata.check_stack(name, content, _shape(options)) if stacked else []
    return (None if problems else content), problems


def _shape(options: ValidationOptions) -> tuple[int, int, int]:
    return (3, options.image_size, options.image_size)


def _check_pixels(name: str, stored: NDArray, options: ValidationOptions) -> tuple[dict, list[Problem]]:
    """Statistics and problems of one tile as it is stored."""
    pixels = decode(stored) if stored.dtype == np.uint16 else stored
    problems = tile_metadata.check_form(name, pixels, _shape(options))
    if problems:
        return {}, problems
    problems = tile_metadata.check_content(name, pixels, min_std=options.min_std, max_saturated=options.max_saturated)
    return tile_metadata.statistics(pixels) | {"digest": tile_metadata.digest(encode(stored))}, problems


def _check_file(file: TileFile | None, wanted: str, tiles: pd.DataFrame, options: ValidationOptions) -> tuple[list[dict], list[Problem]]:
    """Statistics of the tiles of one file, and all problems."""
    content, problems = _open(file, wanted, tiles, options)
    figures: list[dict] = [{} for _ in range(len(tiles))]
    if content is None:
        return figures, problems
    stacked = tiles["stack"].notna().iloc[0]
    for number, (name, index) in enumerate(zip(tiles["tile_id"], tiles["index"], strict=True)):
        wrong = tile_metadata.check_index(name, index, len(content)) if stacked else []
        if not wrong:
            figures[number], wrong = _check_pixels(name, content[index] if stacked else content, options)
        problems += wrong
    if stacked:
        problems += tile_metadata.check_unlisted(wanted, tiles["index"], len(content))
    return figures, problems


def _by_file(table: pd.DataFrame, files: TileFolder) -> dict[tuple[str, TileFile | None], list[int]]:
    """Numbers of the tiles in each file; a tile without a file counts under the first place where it was looked for."""
    places = [({"stack": stack}, numbers) for stack, numbers in table.groupby("stack", observed=True, sort=False).indices.items()]
    alone = table[table["stack"].isna()]
    rows = zip(alone.index, alone["tile_id"], alone["pt_path"], strict=True)
    groups: dict[tuple[str, TileFile | None], list[int]] = {}
    for tile, numbers in [*places, *(({"tile_id": name, "pt_path": path}, [number]) for number, name, path in rows)]:
        file = files.find(tile)
        groups.setdefault((file.name if file else tile_files(tile)[0], file), []).extend(numbers)
    return groups


def _look_at_all(table: pd.DataFrame, files: TileFolder, options: ValidationOptions) -> tuple[pd.DataFrame, list[Problem]]:
    """Statistics per tile and all problems, file by file."""
    figures: list[pd.DataFrame] = []
    problems: list[Problem] = []
    groups = _by_file(table, files)
    with tqdm(total=len(table), desc="checking tiles", unit="tile", disable=no_bars()) as progress:
        for (wanted, file), numbers in groups.items():
            found, wrong = _check_file(file, wanted, table.iloc[numbers], options)
            figures.append(pd.DataFrame(found, index=numbers))
            problems += wrong
            progress.update(len(numbers))
    used = {file.name for _, file in groups if file}
    problems += [Problem(name, "extra", "a file that the metadata does not list") for name in files if name not in used]
    return (pd.concat(figures).sort_index() if figures else pd.DataFrame()), problems


def check_tiles(tiles: TileSet, options: ValidationOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every tile; a table of verdicts and a table of problems (tile_id or file, kind, message)."""
    listed = tile_table(tiles.metadata)
    problems = tile_metadata.check_names(listed) + tile_metadata.check_splits(listed) + tile_metadata.check_places(listed)
    figures, wrong = _look_at_all(listed, tiles.files(), options)
    problems += wrong
    clean, rule = clean_verdicts(listed)
    table = pd.concat([listed[["tile_id", "split"]].assign(clean=clean, rule=rule), figures], axis=1)
    if "digest" in table:
        digests = table.dropna(subset="digest").drop_duplicates("tile_id").set_index("tile_id")["digest"]
        problems += tile_metadata.check_duplicates(digests)
    if not (clean & (listed["split"].isna() | (listed["split"] == "train"))).any():
        problems.append(Problem("all", "clean", f"none of the {len(table)} tiles is a clean tile of split train; {WANTED}"))
    return table, pd.DataFrame([vars(problem) for problem in problems], columns=["tile_id", "kind", "message"])


def report_tiles(tiles: TileSet, table: pd.DataFrame, problems: pd.DataFrame, options: ValidationOptions) -> dict[str, Any]:
    """Counts and the verdict. `dropped` are tiles that training leaves out, where `on_content` is `drop`."""
    content = problems["kind"].isin(tile_metadata.CONTENT)
    stops = problems if options.on_content == "stop" else problems[~content]
    dropped = [] if options.on_content == "stop" else sorted(set(problems[content]["tile_id"]))
    return {
        "passed": stops.empty,
        "fingerprint": fingerprint(tiles.metadata),
        "tiles": len(table),
        "clean": int(table["clean"].sum()),
        "decided_by": table["rule"].value_counts().to_dict(),
        "problems": problems["kind"].value_counts().to_dict(),
        "stopping": stops.to_dict("records"),
        "dropped": dropped,
    }


def _refusal(report: Mapping[str, Any]) -> str:
    """Every stopping problem, the first 20; all are in the report."""
    lines = [f"  {problem['tile_id']}: {problem['kind']}: {problem['message']}" for problem in report["stopping"]]
    more = [f"  ... and {len(lines) - 20} more, see the validation report"] if len(lines) > 20 else []
    return "\n".join([f"{len(lines)} problems with the tiles; training would not be sound:", *lines[:20], *more, REPAIR])


def _noise_levels(metadata: dict, signals: NDArray, sensor: SensorOptions, sources: Sources) -> list[float]:
    """Standard deviations, tile domain, of the short exposures at typical signals; unknown cameras are left out."""
    files = {file["frame"]: file for file in metadata.get("files", []) if "frame" in file}
    levels: list[float] = []
    for pair in metadata.get("pairs", []):
        file = files.get(pair["long"])
        if file is None:
            continue
        try:
            noise, *_ = sensor.noise_model(file["camera"], pair["iso"], file["white_level"] - file["black_level"], sources)
        except ValueError as error:
            logger.warning("no noise level for %s: %s", pair["short"], error)
            continue
        gains = pair["exposure_ratio"] * np.asarray(file["white_balance"])[:, None]
        levels += (TILE_SLOPE * gains * np.sqrt(noise.variance(signals / gains))).ravel().tolist()
    return levels


def measure_tiles(
    tiles: TileSet, table: pd.DataFrame, report: dict[str, Any], calibrations: list[dict], sensor: SensorOptions
) -> Iterator[dict[str, Any]]:
    """Mean and standard deviation of the clean training tiles, and the constants they suggest.

    Where the tiles are not fit for training, the statistics of an earlier validation are withdrawn first: they are saved empty.

    Raises:
        ValidationError: the report says no, or all tiles were dropped.
    """
    kept = table["clean"] & ((table["split"] == "train") | table["split"].isna()) & ~table["tile_id"].isin(report["dropped"])
    table = table[kept]
    if not report["passed"]:
        yield {}
        raise ValidationError(_refusal(report))
    if table.empty:
        yield {}
        raise ValidationError(f"validation.on_content=drop leaves none of the clean tiles of split train; {WANTED}")
    logger.info("%d tiles checked, %d clean, %d left out", report["tiles"], report["clean"], len(report["dropped"]))
    mean = float(table["mean"].mean())
    std = float(np.sqrt((table["std"] ** 2 + table["mean"] ** 2).mean() - mean**2))
    signals = from_tile_domain(np.quantile(table["mean"], SIGNAL_QUANTILES))
    proposal = propose(mean, std, _noise_levels(tiles.metadata, signals, sensor, sensor.sources(calibrations, {})))
    logger.info("proposed: %s", ", ".join(f"{key}={value:.4g}" for key, value in proposal.items()))
    yield {"fingerprint": report["fingerprint"], "dropped": report["dropped"]} | proposal


def create_pipeline() -> Pipeline:
    """The validation pipeline."""
    return Pipeline([
        Node(check_tiles, ["tiles", "params:validation"], ["tile_checks", "tile_problems"], name="check_tiles"),
        Node(
            report_tiles, ["tiles", "tile_checks", "tile_problems", "params:validation"], "validation_report",
            name="report_tiles",
        ),
        Node(
            measure_tiles, ["tiles", "tile_checks", "validation_report", "calibrations", "params:sensor"], "tile_statistics",
            name="measure_tiles",
        ),
    ])  # fmt: skip
