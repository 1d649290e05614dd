"""Nodes of the training pipeline."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lowlight_kedro.datasets.edm_pt import EDMPTDataset, TileSet
from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint, digest, identity
from lowlight_kedro.diffusion.prior import network_choice, prior_of, snapshot_name, snapshot_of
from lowlight_kedro.diffusion.share import require_whole_passes
from lowlight_kedro.diffusion.validation import best_row
from lowlight_kedro.pipelines.options import Options, differences
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.progress import training_figure, with_costs
from lowlight_kedro.pipelines.training.ranks import seated, stop_requests, world_size
from lowlight_kedro.pipelines.training.work import train_rank

logger = logging.getLogger(__name__)


def _kept_of(prior: Checkpoint | None, part: str) -> dict[str, Any]:
    """What a prior decides parts of which are learned: its network and its units.

    Raises:
        ValueError: there is no such prior.
    """
    if prior is None:
        raise ValueError(
            f"training.learn={part} learns that part of a prior at hand, and there is none: name it with --params start_from=FILE, "
            "or set training.learn=all"
        )
    name, chosen = network_choice(prior)
    if part != "spread" and not chosen.get("second"):
        raise ValueError(f"training.learn={part}: the network of {prior.source} has no second opinions, see conf/second")
    units = {key: prior.description[key] for key in ("scaling", "sigma_data")}
    return {"network": {"name": name, "options": chosen}} | units


def describe_training(tile_statistics: dict[str, Any], options: TrainingOptions, initial_prior: Checkpoint | None = None) -> dict[str, Any]:
    """What identifies a run, as stored in its checkpoints; `auto` constants are those that validation proposed."""
    constants = {
        name: tile_statistics[name] if getattr(options, name) == "auto" else getattr(options, name)
        for name in ("P_mean", "P_std", "sigma_data")
    }
    measured = {"mean": tile_statistics["mean"], "scale": tile_statistics["std"] / constants["sigma_data"]}
    description = {
        "format": FORMAT,
        "network": options.network.describe(),
        "corruption": options.corruption.describe(),
        "scaling": measured if options.scaling == "auto" else asdict(options.scaling),
        **constants,
        "data": tile_statistics["fingerprint"],
        "batch_size": options.batch_size,
        "crop": options.crop,
        "seed": options.seed,
        "initial_prior": digest(initial_prior) if initial_prior else None,
    }
    if options.learn != "all":
        description |= _kept_of(initial_prior, options.learn)
    if options.spread:
        description["network"] |= {"spread": options.spread.model_dump()}
    return description


def _require_size(tiles: TileSet) -> None:
    size, wanted = tiles.metadata.get("tile_size"), tiles.image_size
    if size not in (None, wanted):
        raise ValueError(
            f"the tiles are of {size} x {size} pixels, expected tile_size={wanted} of globals.yml; set tile_size to {size}, or make the "
            "tiles again"
        )


def _for_measuring(tiles: TileSet) -> EDMPTDataset | None:
    """The tiles of split `val`; none where there is no clean one."""
    try:
        return tiles.split("val")
    except ValueError:
        return None


def _tell_differences(metadata: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """What the parameters say of the tiles at hand that was not so when they were made."""
    for pipeline, options in metadata.get("made_by", {}).items():
        now = parameters.get(pipeline, {})  # typed where a node of this run takes it
        changed = differences(options, now.model_dump(mode="json") if isinstance(now, Options) else now)
        if changed:
            logger.warning(
                "the tiles were not made with the parameters of now: %s; `kedro run --pipelines %s,validation` makes them anew",
                "; ".join(f"{pipeline}.{change}" for change in changed), pipeline,
            )  # fmt: skip


def _require_validated(tiles: EDMPTDataset, tile_statistics: dict[str, Any]) -> None:
    if tiles.fingerprint != tile_statistics["fingerprint"]:
        raise ValueError(
            f"the tiles (fingerprint {tiles.fingerprint}) are not those that were validated ({tile_statistics['fingerprint']}); "
            "run `kedro run --pipelines validation` first"
        )


def _due(state: Checkpoint, column: str) -> dict[str, Checkpoint]:
    """The snapshot that is due, by its name; none where the run was only stopped."""
    images, history = state.description["images"], state.description["history"]
    due = bool(history) and history[-1]["snapshot"] and round(history[-1]["kimg"] * 1000) == images
    return {snapshot_name(images): snapshot_of(state, column)} if due else {}


def _log_end(history: list[dict[str, Any]], done: bool, options: TrainingOptions) -> None:
    """Say why the run ended early, and what was best."""
    selection = options.selection
    number = best_row(history, selection.column)
    row = {} if number is None else history[number]
    best = f"{selection.column} {row[selection.column]:.4g} at {row['kimg']:g} kimg" if row else "none"
    if not done:
        logger.info(
            "ended early at %g kimg: %d ticks without a gain over %g in %s; best %s",
            history[-1]["kimg"], selection.patience_ticks, selection.min_delta, selection.column, best,
        )  # fmt: skip
    elif row:
        logger.info("best %s", best)


def train_prior(
    tiles: TileSet, tile_statistics: dict[str, Any], earlier_state: Checkpoint | None, earlier_history: pd.DataFrame | None,
    initial_prior: Checkpoint | None, options: TrainingOptions, parameters: dict[str, Any],
) -> Iterator[tuple[dict[str, Checkpoint], Checkpoint, pd.DataFrame]]:  # fmt: skip
    """Train, yielding snapshots, the state and the history; resumes from `earlier_state`, or begins with `initial_prior`.

    Kedro saves them in this order: a run that is killed between them comes to the same snapshot again.

    `earlier_history` is the table that the earlier process left: the time that ticks took is told nowhere else.
    The metadata of the tiles and all `parameters` are compared: tiles that were made with others are told before the first update.

    Raises:
        SystemExit: after the state was saved that Ctrl-C (code 130) or SIGTERM (143) asked for, and in all ranks but the first.
    """
    _require_size(tiles)
    train_tiles = tiles.split("train")
    _require_validated(train_tiles, tile_statistics)
    _tell_differences(tiles.metadata, parameters)
    description = describe_training(tile_statistics, options, initial_prior)
    arguments = (train_tiles, _for_measuring(tiles), tile_statistics["dropped"], description, earlier_state, initial_prior, options)
    images, history, total = 0, [], options.schedule(batch_gpu=1).total_images
    require_whole_passes(options.batch_size, 1 if options.batch_gpu == "auto" else options.batch_gpu, world_size())
    with stop_requests() as asked, seated(options.device, asked) as seat, closing(train_rank(*arguments, seat=seat)) as states:
        for state, costs in states:
            images, history = state.description["images"], state.description["history"]
            table = with_costs(history, costs, earlier_history if options.resume else None)
            if seat.first:
                yield _due(state, options.selection.column), state, table
    if images < total and not options.selection.enough(history):
        logger.warning("stopped at %.3f kimg, state saved; the same command goes on from there", images / 1000)
        raise SystemExit(asked.exit_code)
    if not seat.first:
        raise SystemExit(0)  # what follows training happens once, in rank 0
    _log_end(history, images >= total, options)


def export_prior(training_state: Checkpoint, snapshots: Mapping[str, Callable[[], Checkpoint]], options: TrainingOptions) -> Checkpoint:
    """The prior for inference: the running mean of the newest state, or the best snapshot.

    Raises:
        ValueError: the best was asked for, and there is none or it is of another run.
    """
    if options.export == "last":
        return prior_of(training_state)
    if "best" not in snapshots:
        raise ValueError(
            f"training.export=best: there is no best snapshot, because the history has no column {options.selection.column!r} "
            "at a snapshot; name one of its columns as training.selection.column, or set training.export=last"
        )
    best = snapshots["best"]()
    if identity(best.description) != identity(training_state.description):
        raise ValueError(
            f"training.export=best: the best snapshot ({best.source}) is of another run, because no snapshot of this one has a figure in "
            f"{options.selection.column!r}; name another column as training.selection.column, or set training.export=last"
        )
    return best


def plot_training(history: pd.DataFrame) -> Figure:
    """Loss, learning rate, gradient norm, speed, and the quality of EMA and raw weights per noise level."""
    return training_figure(history)
