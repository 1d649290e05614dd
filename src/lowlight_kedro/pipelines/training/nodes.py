"""Nodes of the training pipeline."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from lowlight_kedro.datasets.edm_pt import EDMPTDataset
from lowlight_kedro.datasets.stacks import decode
from lowlight_kedro.diffusion.checkpoint import Checkpoint, begin_with, digest, pack, unpack
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.share import agree, require_whole_passes
from lowlight_kedro.diffusion.state import State
from lowlight_kedro.diffusion.training import train
from lowlight_kedro.diffusion.validation import denoising_quality
from lowlight_kedro.pipelines.device import choose_device
from lowlight_kedro.pipelines.training.interrupt import stop_requests
from lowlight_kedro.pipelines.training.launch import choose_crew, launched
from lowlight_kedro.pipelines.training.loading import batch_source
from lowlight_kedro.pipelines.training.options import TrainingOptions
from lowlight_kedro.pipelines.training.rank import Seat
from lowlight_kedro.plugins import choose
from lowlight_kedro.restoration.corruption import ALL_CORRUPTIONS

logger = logging.getLogger(__name__)


def describe_training(tile_statistics: dict[str, Any], options: TrainingOptions) -> dict[str, Any]:
    """What identifies a run, as stored in its checkpoints; `auto` constants are those that validation proposed."""
    constants = {
        name: tile_statistics[name] if getattr(options, name) == "auto" else getattr(options, name)
        for name in ("P_mean", "P_std", "sigma_data")
    }
    return {
        "format": 1,
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


def _fresh_state(description: dict[str, Any], device: torch.device) -> State:
    torch.manual_seed(description["seed"])
    chosen = description["network"]
    network = choose("network", NETWORKS, chosen["name"])(**chosen["options"])
    parameters = sum(weights.numel() for weights in network.parameters())
    logger.info("network %s, %.2f million parameters, on %s", chosen["name"], parameters / 1e6, device)
    return State.fresh(Denoiser(network, description["sigma_data"]).to(device))


def _validator(
    tiles: EDMPTDataset | None, scaling: Scaling, options: TrainingOptions, device: torch.device
) -> Callable[[State], dict[str, float]]:
    """A function that measures the EMA weights on centre crops of tiles spread over the validation split."""
    if tiles is None:
        logger.warning("split val has no clean tile: validation figures will be missing")
        return lambda state: {}
    wanted = options.validate_
    chosen = range(0, len(tiles), max(1, len(tiles) // wanted.tiles))[: wanted.tiles]
    images = torch.stack([tiles[i][0] for i in chosen])
    edge = (images.shape[-1] - min(wanted.crop, images.shape[-1])) // 2
    fixed = images[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge].to(device)
    return lambda state: denoising_quality(state.ema, fixed, wanted.sigmas, scaling, options.seed)


def train_rank(
    train_tiles: EDMPTDataset, val_tiles: EDMPTDataset | None, tile_statistics: dict[str, Any],
    earlier_state: Checkpoint | None, initial_prior: Checkpoint | None, options: TrainingOptions, *, seat: Seat,
) -> Generator[Checkpoint, None, None]:  # fmt: skip
    """What each rank does: the same updates, its own share of the images; yields the state at every snapshot."""
    device, schedule = seat.device, options.schedule()
    description = describe_training(tile_statistics, options)
    scaling = Scaling(**description["scaling"])
    description |= {"initial_prior": digest(initial_prior) if initial_prior else None}
    state = _fresh_state(description, device)
    if initial_prior is not None:
        begin_with(state, initial_prior)
        logger.info("the weights begin with those of the initial prior")
    if earlier_state is not None and options.resume:
        unpack(earlier_state, state, description)
        logger.info("resumed at %.1f of %.1f kimg", state.images / 1000, schedule.total_images / 1000)
    if options.nodes > 1:
        agree("the state they begin with (is data/ shared by the nodes?)", digest(pack(state, description))[:12])
    corruption = choose("corruption", ALL_CORRUPTIONS, options.corruption.name)(
        P_mean=description["P_mean"], P_std=description["P_std"], scaling=scaling, **options.corruption.chosen
    )
    share = seat.share(state.denoiser)
    batches = batch_source(
        train_tiles, tile_statistics["dropped"], options.batch_size, options.seed, options.loader,
        part=share.part(options.batch_size), device=device,
    )  # fmt: skip
    validate = _validator(val_tiles, scaling, options, device) if seat.first else lambda state: {}
    progress = tqdm(total=schedule.total_images, initial=state.images, desc="training", unit="img", unit_scale=True, disable=not seat.first)

    def on_step(now: State, loss: float) -> None:
        progress.update(options.batch_size)
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)

    with progress:
        for now in train(
            state, batches, schedule, decode=decode, scaling=scaling, corruption=corruption, device=device,
            validate=validate, on_step=on_step, should_stop=seat.should_stop, share=share,
        ):  # fmt: skip
            yield pack(now, description)


def train_prior(
    train_tiles: EDMPTDataset, val_tiles: EDMPTDataset | None, tile_statistics: dict[str, Any],
    earlier_state: Checkpoint | None, initial_prior: Checkpoint | None, options: TrainingOptions,
) -> Iterator[tuple[Checkpoint, pd.DataFrame]]:  # fmt: skip
    """Train, yielding the state and the history at every snapshot; resumes from `earlier_state`, or begins with `initial_prior`.

    Raises:
        KeyboardInterrupt: after the snapshot that Ctrl-C or SIGTERM asked for.
    """
    _require_validated(train_tiles, tile_statistics)
    device = choose_device(options.device)
    crew = choose_crew(options.devices, options.nodes, options.rendezvous, device)
    require_whole_passes(options.batch_size, options.batch_gpu, crew.world)
    arguments = (train_tiles, val_tiles, tile_statistics, earlier_state, initial_prior, options)
    images = 0
    with stop_requests() as stopping:
        if crew.world == 1:
            states = train_rank(*arguments, seat=Seat(device, stopping))
        else:
            states = launched(train_rank, arguments, crew, device=device, stopping=stopping)
        with closing(states):
            for state in states:
                images = state.description["images"]
                yield state, pd.DataFrame(state.description["history"])
        if stopping() and images < options.schedule().total_images:
            raise KeyboardInterrupt(f"stopped at {images / 1000:.1f} kimg, state saved; the same command goes on from there")


def plot_training(history: pd.DataFrame) -> Figure:
    """Loss, and PSNR and SSIM on validation tiles per noise level, over thousands of images."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    axes[0].plot(history["kimg"], history["loss"])
    axes[0].set(title="training loss", xlabel="kimg", yscale="log")
    for axis, kind, unit in ((axes[1], "psnr", " (dB, data range 2)"), (axes[2], "ssim", " (data range 2)")):
        for column in (name for name in history.columns if name.startswith(kind)):
            axis.plot(history["kimg"], history[column], label=f"sigma {column.split('_')[1]}")
        axis.set(title=f"validation {kind.upper()}{unit}, EMA weights", xlabel="kimg")
        axis.legend() if axis.lines else axis.text(0.5, 0.5, "no validation tiles", ha="center", transform=axis.transAxes)
    plt.close(figure)
    return figure
