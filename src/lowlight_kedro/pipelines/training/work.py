"""What each rank of a training does, from tiles to states."""

import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import nn

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.device import choose_precision, computes_in_bf16
from lowlight_kedro.diffusion.checkpoint import Checkpoint, digest, pack, unpack
from lowlight_kedro.diffusion.compute import compile_network, gpu_arithmetic, prepare
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.memory import fitting_pass, parameter_count, run_pass
from lowlight_kedro.diffusion.networks import built_network
from lowlight_kedro.diffusion.prior import begin_with
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.share import agree
from lowlight_kedro.diffusion.training import State, train
from lowlight_kedro.diffusion.validation import validation_row
from lowlight_kedro.pipelines.options import differences
from lowlight_kedro.pipelines.training.loading import batch_source, reading_errors
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.progress import Progress
from lowlight_kedro.pipelines.training.ranks import Seat
from lowlight_kedro.plugins import configured
from lowlight_kedro.restoration.corruption import ALL_CORRUPTIONS


def require_sizes(network: nn.Module, tile_size: int, crop: int | None, validation_crop: int) -> None:
    """Sides in pixels; `crop` None: whole tiles. A network that names no `multiple` takes every size.

    Raises:
        ValueError: the crop is larger than the tiles, or the network cannot halve a side as often as it does.
    """
    if crop is not None and crop > tile_size:
        raise ValueError(
            f"training.crop must be at most the tile size {tile_size}, got crop={crop}; set training.crop={tile_size}, or null for "
            "whole tiles, or make larger tiles (tile_size in globals.yml)"
        )
    multiple = getattr(network, "multiple", 1)
    sides = {"training.crop": crop or tile_size, "training.validate.crop": min(validation_crop, tile_size)}
    for name, side in sides.items():
        if side % multiple:
            fits = f"set {name}={side // multiple * multiple}, or take " if side > multiple else "take "
            raise ValueError(
                f"{name} must be a multiple of {multiple} for this network to halve the image, got {side} (tiles of {tile_size}); "
                f"{fits}a network of fewer levels"
            )


logger = logging.getLogger(__name__)


def learn_only(state: State, part: str) -> None:
    """All weights stay as they are but those of the parts of the network that are called so: `spread`, `second`, or the `gate` of that."""
    for name, weights in state.denoiser.network.named_parameters():
        weights.requires_grad_(part in name.split("."))


def fresh_state(description: dict[str, Any], averages: Iterable[str], device: torch.device) -> State:
    """At image 0, with weights drawn from the seed.

    Raises:
        ValueError: the network was told another `sigma_data` than its denoiser has.
    """
    torch.manual_seed(description["seed"])
    chosen = description["network"]
    network = built_network(description)
    wanted, found = description["sigma_data"], getattr(network, "sigma_data", description["sigma_data"])
    if found != wanted:
        raise ValueError(
            f"sigma_data of network {chosen['name']} must be that of its denoiser, got {found}, expected {wanted}; set "
            f"training.network.options.{chosen['name']}.sigma_data={wanted}, or training.sigma_data=auto"
        )
    logger.info("network %s, %.2f million parameters, on %s", chosen["name"], parameter_count(network) / 1e6, device)
    return State.fresh(Denoiser(network, wanted).to(device), averages)


def _images_of_a_pass(state: State, channels: int, side: int, options: TrainingOptions, seat: Seat) -> int:
    """`batch_gpu`, or what fits on every rank."""
    if options.batch_gpu != "auto":
        return options.batch_gpu
    compute, share = options.compute, options.batch_size // seat.world
    fits = fitting_pass(
        state.denoiser, share, channels, side, compute.precision, compute.limits, has_moments=state.images > 0
    )  # fmt: skip
    size = seat.least(fits)
    logger.info("batch_gpu: auto takes %d images of %d x %d a pass, %d passes an update", size, side, side, share // size)
    return size


def _make_ready(state: State, tiles: EDMPTDataset, options: TrainingOptions, seat: Seat) -> int:
    """Weights as `compute` wants them, in place; returns the images of a pass."""
    compute, (channels, _, side) = options.compute, tiles.shape
    side = options.crop or side
    prepare(state.denoiser, list(state.averages.values()), state.optimizer, compute)
    with gpu_arithmetic(compute):
        size = _images_of_a_pass(state, channels, side, options, seat)
        if compute.compile is not None:
            compile_network(state.denoiser.network, compute)
            started = perf_counter()
            run_pass(state.denoiser, size, channels, side, compute.precision)
            logger.info("compiled (%s) in %.0f s, not counted in img/s", compute.compile, perf_counter() - started)
    return size


def validator(
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


def first_state(
    description: dict[str, Any], earlier: Checkpoint | None, initial: Checkpoint | None, options: TrainingOptions, device: torch.device,
    tile_size: int,
) -> State:  # fmt: skip
    """A fresh state, one that begins with the weights of `initial`, or `earlier` to go on with."""
    state = fresh_state(description, options.averages(), device)
    require_sizes(state.denoiser.network, tile_size, options.crop, options.validate_.crop)
    if initial is not None:
        begin_with(state, initial)
        logger.info("the weights begin with those of the initial prior")
    if options.learn != "all":
        learn_only(state, options.learn)
    if earlier is not None and options.resume:
        unpack(earlier, state, description)
        logger.info("resumed at %.1f of %.1f kimg", state.images / 1000, options.total_kimg)
        _tell_change(earlier, options)
    return state


def _is_finished(earlier: Checkpoint, options: TrainingOptions) -> bool:
    return options.resume and earlier.description["images"] >= options.schedule(batch_gpu=1).total_images


def course_of(earlier: Checkpoint | None, options: TrainingOptions) -> dict[str, Any]:
    """What goes into the state of how it is trained: that of now, or where nothing is trained any more, that of `earlier`."""
    if earlier is None or not _is_finished(earlier, options):
        return {"course": options.course()}
    return {key: value for key, value in earlier.description.items() if key == "course"}


def _tell_change(earlier: Checkpoint, options: TrainingOptions) -> None:
    """What the run at hand was trained with until now, where that is not what the parameters say."""
    before = earlier.description.get("course")  # states of before it was kept tell nothing
    changed = [] if before is None else differences(before, options.course())
    if changed and _is_finished(earlier, options):
        logger.warning(
            "the training at hand (%s) is finished, so nothing is trained with what differs now: %s; set training.resume=false to "
            "start afresh over it, or training.total_kimg higher to go on", earlier.source, "; ".join(changed),
        )  # fmt: skip
    elif changed:
        logger.warning("the training at hand (%s) goes on with other parameters than it had: %s", earlier.source, "; ".join(changed))


def settled(options: TrainingOptions, device: torch.device) -> TrainingOptions:
    """With `precision: auto` as bf16 where the device computes in it, else fp32; bf16 that is only emulated is warned of."""
    wanted = options.compute.precision
    chosen = choose_precision(wanted, device)
    if chosen == "bf16" and not computes_in_bf16(device):
        logger.warning("this device has no bf16 and emulates it, tens of times slower: set training.compute.precision to auto or fp32")
    if wanted == "auto":
        logger.info("precision: auto takes %s on %s", chosen, device)
    return options.model_copy(update={"compute": replace(options.compute, precision=chosen)})


def train_rank(
    train_tiles: EDMPTDataset, val_tiles: EDMPTDataset | None, dropped: list[str], description: dict[str, Any],
    earlier_state: Checkpoint | None, initial_prior: Checkpoint | None, options: TrainingOptions, *, seat: Seat,
) -> Generator[tuple[Checkpoint, list[dict[str, float]]], None, None]:  # fmt: skip
    """The same updates on every rank, each with its share of the images; yields the state at every snapshot, and what ticks took."""
    device, scaling, options = seat.device, Scaling(**description["scaling"]), settled(options, seat.device)
    state = first_state(description, earlier_state, initial_prior, options, device, train_tiles.shape[-1])
    schedule = options.schedule(_make_ready(state, train_tiles, options, seat))
    if seat.local < seat.world:
        agree("the state they begin with (is data/ shared by the machines?)", digest(pack(state, description))[:12])
    corruption = configured("corruption", ALL_CORRUPTIONS, options.corruption.name, options.corruption.chosen)(
        P_mean=description["P_mean"], P_std=description["P_std"], scaling=scaling
    )
    share = seat.share(state.denoiser)
    batches = batch_source(
        train_tiles, dropped, options.batch_size, options.seed, options.loader, part=share.part(options.batch_size), device=device
    )
    measure = validator(val_tiles, scaling, options, device) if seat.first else lambda state: {}
    progress = Progress(state, schedule.total_images, device, terminal=None if seat.first else False)
    with progress.bar, reading_errors(), gpu_arithmetic(options.compute):
        for now in train(
            state, progress.timed(batches), schedule, decode=decode, scaling=scaling, corruption=corruption, device=device,
            validate=lambda state: seat.heard(measure(state)), on_step=progress.stepped, on_tick=progress.ticked,
            should_stop=seat.should_stop, enough=options.selection.enough, share=share,
        ):  # fmt: skip
            yield pack(now, description | course_of(earlier_state, options)), progress.rows
