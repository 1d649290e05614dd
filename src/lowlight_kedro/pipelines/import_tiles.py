"""Existing folders of `.pt` tiles to stacks; run by name, not part of `kedro run`.

metadata + folder of .pt -> stacks -> metadata of the stacks and a report
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from kedro.pipeline import Node, Pipeline
from numpy.typing import NDArray
from pydantic import Field

from lowlight_kedro.bounds import Count
from lowlight_kedro.datasets.stacks import STEP, decode, encode
from lowlight_kedro.datasets.tiles import TileFolder
from lowlight_kedro.jobs import Job, Jobs
from lowlight_kedro.pipelines.options import ExecutorOptions, Options
from lowlight_kedro.sensor.tile_metadata import check_form, clean_verdicts, in_stack, list_tiles, replace_tiles, tile_table

logger = logging.getLogger(__name__)


class ImportOptions(Options):
    """All of `params:import_tiles`."""

    image_size: Annotated[int, Field(ge=16)]
    tiles_per_stack: Count
    clip: bool

    def tile_sides(self) -> dict[str, int]:
        """See `Options`."""
        return {"image_size": self.image_size}


ELSEWHERE = ("pt_path", "stack", "index")  # where a tile was; says nothing of where it is now


@dataclass(frozen=True)
class Imported:
    """One tile on its way: `code` is None where it was refused, with the `reason`.

    `error` is the largest rounding error, tile domain; `outside` counts the values outside [-1, 1].
    """

    code: NDArray[np.uint16] | None
    reason: str = ""
    error: float = 0.0
    outside: int = 0


def groups(metadata: Mapping[str, Any], tiles_per_stack: int) -> dict[str, list[int]]:
    """Numbers of the tiles that make each stack; clean tiles go to `long`, the others to `short`, in their order."""
    clean, _ = clean_verdicts(tile_table(metadata))
    kinds = {"long": np.flatnonzero(clean).tolist(), "short": np.flatnonzero(~clean).tolist()}
    return {
        f"{kind}/import_{start // tiles_per_stack:05d}": numbers[start : start + tiles_per_stack]
        for kind, numbers in kinds.items()
        for start in range(0, len(numbers), tiles_per_stack)
    }


def _read(tile: Mapping[str, Any], files: TileFolder) -> NDArray:
    """A tile, float32 where it was 16 bits.

    Raises:
        ValueError: there is no file for it, or no such number in its stack.
        DatasetError: the file cannot be read.
    """
    file = files.find(tile)
    if file is None:
        raise ValueError("no file for it")
    if not in_stack(tile):
        return file()
    stack = file()
    if not 0 <= tile["index"] < len(stack):
        raise ValueError(f"number {tile['index']} of a stack of {len(stack)}")
    pixels = stack[tile["index"]]
    return decode(pixels) if pixels.dtype == np.uint16 else pixels


def import_tile(tile: Mapping[str, Any], files: TileFolder, options: ImportOptions) -> Imported:
    """Read, check and encode one tile; whatever is wrong with it refuses it and no other."""
    try:
        pixels = _read(tile, files)
    except Exception as error:  # noqa: BLE001 - whatever a dataset raises is the tile's problem, not the run's
        return Imported(None, str(error))
    outside = int(np.count_nonzero(np.isfinite(pixels) & (np.abs(pixels) > 1)))
    if options.clip and np.isfinite(pixels).all():
        pixels = np.clip(pixels, -1, 1)
    problems = check_form(tile["tile_id"], pixels, (3, options.image_size, options.image_size))
    if problems:
        hint = "; import_tiles.clip=true would clip them" if problems[0].kind == "range" else ""
        return Imported(None, problems[0].message + hint, outside=outside)
    code = encode(pixels)
    return Imported(code, error=float(np.abs(decode(code) - pixels).max()), outside=outside)


def _record(names: list[str], results: list[Imported]) -> dict[str, Any]:
    """What became of the tiles of one stack; `index` counts those that were taken."""
    taken = iter(range(len(results)))
    return {
        "tiles": [
            {"tile_id": name, "index": None if result.code is None else next(taken), "reason": result.reason, "outside": result.outside}
            for name, result in zip(names, results, strict=True)
        ],
        "max_error": max(result.error for result in results),
    }


def _import_stack(name: str, tiles: list[dict[str, Any]], files: TileFolder, options: ImportOptions) -> dict[str, Any]:
    """The stack of these tiles, none where all were refused, and what became of each."""
    results = [import_tile(tile, files, options) for tile in tiles]
    codes = [result.code for result in results if result.code is not None]
    record = _record([tile["tile_id"] for tile in tiles], results)
    return {"tiles": {f"{name}.npy": np.stack(codes)} if codes else {}, "record": record}


def import_stacks(import_metadata: dict, import_files: TileFolder, options: ImportOptions, executor: ExecutorOptions) -> Jobs:
    """For each stack the job to read, check and encode its tiles. A tile that cannot be used is listed in the stack's record."""
    listed = list_tiles(import_metadata)
    jobs = []
    for name, numbers in groups(import_metadata, options.tiles_per_stack).items():
        tiles = [listed[number] for number in numbers]
        found = {file.name: file for tile in tiles if (file := import_files.find(tile))}
        settings = [options.model_dump(), name, [{key: tile.get(key) for key in ("tile_id", "index")} for tile in tiles], sorted(found)]
        jobs.append(Job(name, "tiles", partial(_import_stack, name, tiles, import_files), list(found.values()), settings))
    return Jobs(jobs, options, executor.build(), "importing tiles", "stack")


def _moved(tile: Mapping[str, Any], stack: str, index: int) -> dict[str, Any]:
    return {key: value for key, value in tile.items() if key not in ELSEWHERE} | {"stack": stack, "index": index}


def _outcomes(record: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The record of a stack; where the whole of it failed, that of each of its tiles."""
    return _record(names, [Imported(None, record["error"])] * len(names)) if "error" in record else record


def describe_import(
    import_metadata: dict, imported_tiles: dict[str, dict[str, Callable[[], dict]]], options: ImportOptions
) -> tuple[dict, dict[str, Any]]:
    """Metadata that points into the stacks, and a report: how exact, and which tiles were refused and why.

    Raises:
        ValueError: no tile could be imported.
    """
    listed = list_tiles(import_metadata)
    moved: list[dict[str, Any] | None] = [None] * len(listed)
    outcomes, errors, stacks = [], [0.0], 0
    for name, numbers in groups(import_metadata, options.tiles_per_stack).items():
        record = _outcomes(imported_tiles[name]["record"](), [listed[number]["tile_id"] for number in numbers])
        outcomes += record["tiles"]
        errors.append(record["max_error"])
        stacks += any(outcome["index"] is not None for outcome in record["tiles"])
        for number, outcome in zip(numbers, record["tiles"], strict=True):
            moved[number] = None if outcome["index"] is None else _moved(listed[number], f"{name}.npy", outcome["index"])
    refused = [{"tile_id": outcome["tile_id"], "reason": outcome["reason"]} for outcome in outcomes if outcome["index"] is None]
    for tile in refused:
        logger.warning("not imported: %s: %s", tile["tile_id"], tile["reason"])
    if len(refused) == len(listed):
        raise ValueError(f"none of the {len(listed)} tiles could be imported; the first: {refused[0]['reason'] if refused else 'no tiles'}")
    report = {
        "tiles": len(listed), "imported": len(listed) - len(refused), "stacks": stacks, "refused": refused,
        "step": STEP, "max_rounding_error": max(errors), "max_rounding_error_steps": max(errors) / STEP,
        "clip": options.clip, "outside": {outcome["tile_id"]: outcome["outside"] for outcome in outcomes if outcome["outside"]},
    }  # fmt: skip
    logger.info("%d of %d tiles imported, rounded by %.3g at most", report["imported"], len(listed), max(errors))
    here = {"tile_size": options.image_size, "made_by": {"import_tiles": options.model_dump(mode="json")}}
    return replace_tiles(import_metadata, moved) | here, report


def create_pipeline() -> Pipeline:
    """The import_tiles pipeline."""
    return Pipeline([
        Node(
            import_stacks, ["import_metadata", "import_files", "params:import_tiles", "params:executor"], "imported_tiles",
            name="import_stacks",
        ),
        Node(
            describe_import, ["import_metadata", "imported_tiles", "params:import_tiles"], ["tiles", "import_report"],
            name="describe_import",
        ),
    ])  # fmt: skip
