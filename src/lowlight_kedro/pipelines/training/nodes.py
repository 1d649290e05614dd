"""Nodes of the training pipeline."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint, begin_with, digest, pack, prior_of, unpack
from lowlight_kedro.diffusion.compute import compile_network, gpu_arithmetic, prepare
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.passes import fitting_pass, run_pass
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.selection import best_row
from lowlight_kedro.diffusion.snapshots import snapshot_name, snapshot_of
from lowlight_kedro.diffusion.state import State
from lowlight_kedro.diffusion.training import train
from lowlight_kedro.diffusion.validation import validation_row
from lowlight_kedro.pipelines.device import choose_device
from lowlight_kedro.pipelines.training.curves import training_figure
from lowlight_kedro.pipelines.training.interrupt import stop_requests
from lowlight_kedro.pipelines.training.loading import batch_source
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.progress import Progress, with_costs
from lowlight_kedro.pipelines.training.reading import reading_errors
from lowlight_kedro.pipelines.training.sizes import require_sizes
from lowlight_kedro.plugins import configured
from lowlight_kedro.restoration.corruption import ALL_CORRUPTIONS

logger = logging.getLogger(__name__)


def describe_training(tile_statistics: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """What identifies a run, as stored in its checkpoints; `auto` constants are those that validation proposed."""
    constants = {
        name: tile_statistics[name] if getattr(options, name) == "auto" else getattr(options, name)
        for name in ("P_mean", "P_std", "sigma_data")
    }
    return {
        "format": FORMAT,
        "network": options.network.describe(),
        "corruption": options.corruption.describe(),
        "scaling": {"mean": tile_statistics["mean"], "scale": tile_statistics["std"] / constants["sigma_data"]},
        **constants,
        "data": tile_statistics["fingerprint"],
        "batch_size": options.batch_size,
        "crop": options.crop,
        "seed": options.seed,
    }


def _require_validated(tiles: EDMPTDataset, tile_statistics: dict[str, Any]) -> None:
    if tiles.fingerprint != tile_statistics["fingerprint"]:
        raise ValueError(
            f"the tiles (fingerprint {tiles.fingerprint}) are not those that were validated ({tile_statistics['fingerprint']}); "
            "run `kedro run --pipelines validation` first"
        )


def _fresh_state(description: dict[str, Any], averages: Iterable[str], device: torch.device) -> State:
    torch.manual_seed(description["seed"])
    chosen = description["network"]
    network = configured("network", NETWORKS, chosen["name"], chosen["options"])()
    parameters = sum(weights.numel() for weights in network.parameters())
    logger.info("network %s, %.2f million parameters, on %s", chosen["name"], parameters / 1e6, device)
    return State.fresh(Denoiser(network, description["sigma_data"]).to(device), averages)


def _make_ready(state: State, tiles: EDMPTDataset, options: TrainingOptions) -> int:
    """Weights as `compute` wants them, in place; returns the images of a pass."""
    compute, size = options.compute.build(), options.batch_gpu
    prepare(state.denoiser, list(state.averages.values()), state.optimizer, compute)
    channels, _, side = tiles[0][0].shape
    side = options.crop or side
    with gpu_arithmetic(compute):
        if size == "auto":
            limits = options.compute.limits.build()
            size = fitting_pass(state.denoiser, options.batch_size, channels, side, compute.precision, limits, has_moments=state.images > 0)
            logger.info(
                "batch_gpu: auto takes %d images of %d x %d a pass, %d passes an update", size, side, side, options.batch_size // size
            )
        if compute.compile is not None:
            compile_network(state.denoiser.network, compute)
            started = perf_counter()
            run_pass(state.denoiser, size, channels, side, compute.precision)
            logger.info("compiled (%s) in %.0f s, not counted in img/s", compute.compile, perf_counter() - started)
    return size


def _validator(
    tiles: EDMPTDataset | None, scaling: Scaling, options: TrainingOptions, device: torch.device
) -> Callable[[State], dict[str, float]]:
    """A function that measures the weights and their running mean on centre crops of tiles spread over the validation split.

    Raises:
        ValueError: the run shall end by a figure that is not there without such tiles.
    """
    wanted, selection = options.validate_, options.selection
    if tiles is None and selection.patience_ticks is not None and selection.column != "loss":
        raise ValueError(f"selection.column={selection.column} ends the run, but split val has no clean tile; set patience_ticks to null")
    if tiles is None:
        logger.warning("split val has no clean tile: validation figures will be missing")
        return lambda state: {}
    chosen = range(0, len(tiles), max(1, len(tiles) // wanted.tiles))[: wanted.tiles]
    images = torch.stack([tiles[i][0] for i in chosen])
    edge = (images.shape[-1] - min(wanted.crop, images.shape[-1])) // 2
    fixed = images[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge].to(device)
    return lambda state: validation_row(state, fixed, wanted.sigmas, scaling, options.seed, wanted.batch)


def _log_end(state: State, total_images: int, options: TrainingOptions) -> None:
    """Say why the run ended early, and what was best."""
    selection = options.selection
    number = best_row(state.history, selection.column)
    row = {} if number is None else state.history[number]
    best = f"{selection.column} {row[selection.column]:.4g} at {row['kimg']:g} kimg" if row else "none"
    if state.images < total_images:
        logger.info(
            "ended early at %g kimg: %d ticks without a gain over %g in %s; best %s",
            state.images / 1000, selection.patience_ticks, selection.min_delta, selection.column, best,
        )  # fmt: skip
    elif row:
        logger.info("best %s", best)


def train_prior(
    train_tiles: EDMPTDataset, val_tiles: EDMPTDataset | None, tile_statistics: dict[str, Any],
    earlier_state: Checkpoint | None, earlier_history: pd.DataFrame | None, initial_prior: Checkpoint | None, options: TrainingOptions,
) -> Iterator[tuple[dict[str, Checkpoint], Checkpoint, pd.DataFrame]]:  # fmt: skip
    """Train, yielding snapshots, the state and the history; resumes from `earlier_state`, or begins with `initial_prior`.

    Kedro saves them in this order: a run that is killed between them comes to the same snapshot again.

    `earlier_history` is the table that the earlier process left: the time that ticks took is told nowhere else.

    Raises:
        SystemExit: after the state was saved that Ctrl-C (code 130) or SIGTERM (143) asked for.
    """
    _require_validated(train_tiles, tile_statistics)
    device = choose_device(options.device)
    description = describe_training(tile_statistics, options)
    scaling = Scaling(**description["scaling"])
    description |= {"initial_prior": digest(initial_prior) if initial_prior else None}
    state = _fresh_state(description, options.averages(), device)
    require_sizes(state.denoiser.network, train_tiles.shape[-1], options.crop, options.validate_.crop)
    if initial_prior is not None:
        begin_with(state, initial_prior)
        logger.info("the weights begin with those of the initial prior")
    if earlier_state is not None and options.resume:
        unpack(earlier_state, state, description)
        logger.info("resumed at %.1f of %.1f kimg", state.images / 1000, options.total_kimg)
    schedule = options.schedule(_make_ready(state, train_tiles, options))
    corruption = configured("corruption", ALL_CORRUPTIONS, options.corruption.name, options.corruption.chosen)(
        P_mean=description["P_mean"], P_std=description["P_std"], scaling=scaling
    )
    batches = batch_source(train_tiles, tile_statistics["dropped"], options.batch_size, options.seed, options.loader)
    validate, enough = _validator(val_tiles, scaling, options, device), options.selection.enough
    progress = Progress(state, schedule.total_images, device)
    with stop_requests() as stopping, progress.bar, reading_errors(), gpu_arithmetic(options.compute.build()):
        for now in train(
            state, progress.timed(batches), schedule, decode=decode, scaling=scaling, corruption=corruption, device=device,
            validate=validate, on_step=progress.stepped, on_tick=progress.ticked, should_stop=stopping, enough=enough,
        ):  # fmt: skip
            packed = pack(now, description)
            costs = with_costs(now.history, progress.rows, earlier_history if options.resume else None)
            yield _due(packed, options.selection.column), packed, costs
    if stopping() and state.images < schedule.total_images and not enough(state.history):
        logger.warning("stopped at %.3f kimg, state saved; the same command goes on from there", state.images / 1000)
        raise SystemExit(stopping.exit_code)
    _log_end(state, schedule.total_images, options)


def _due(state: Checkpoint, column: str) -> dict[str, Checkpoint]:
    """The snapshot that is due, by its name; none where the run was only stopped."""
    images, history = state.description["images"], state.description["history"]
    due = bool(history) and history[-1]["snapshot"] and round(history[-1]["kimg"] * 1000) == images
    return {snapshot_name(images): snapshot_of(state, column)} if due else {}


def export_prior(training_state: Checkpoint, snapshots: Mapping[str, Callable[[], Checkpoint]], options: TrainingOptions) -> Checkpoint:
    """The prior for inference: the running mean of the newest state, or the best snapshot.

    Raises:
        ValueError: the best was asked for and there is none.
    """
    if options.export == "last":
        return prior_of(training_state)
    if "best" not in snapshots:
        raise ValueError(
            f"training.export=best: there is no best snapshot, because the history has no column {options.selection.column!r} "
            "at a snapshot; name one of its columns as training.selection.column, or set training.export=last"
        )
    return snapshots["best"]()


def plot_training(history: pd.DataFrame) -> Figure:
    """Loss, learning rate, gradient norm, speed, and the quality of EMA and raw weights per noise level."""
    return training_figure(history)
