"""Priors: what a training state leaves for inference, snapshots along a training with means of any width from them (EDM2), and several
priors as one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.checkpoint import FORMAT, Checkpoint, CheckpointMismatchError, identity, part_of, require_fit, running_means
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.ema import POWER, reconstruction
from lowlight_kedro.diffusion.networks.experts import Second
from lowlight_kedro.diffusion.networks.mosaic import MosaicNet
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import State
from lowlight_kedro.diffusion.validation import better

FIX_PRIOR = "name a prior that was trained with these options of the network"


def prior_of(checkpoint: Checkpoint) -> Checkpoint:
    """What inference needs of a training state: the EMA weights and the description without the history."""
    described = identity(checkpoint.description) | {"images": checkpoint.description["images"]}
    return Checkpoint(part_of(checkpoint.tensors, "ema."), described, checkpoint.source)


def weights_of(prior: Checkpoint, ema: str = "ema") -> dict[str, Tensor]:
    """Weights of a prior by the network's names; `ema` chooses among several running means.

    Raises:
        CheckpointMismatchError: it has no mean of that name, or it is a whole training state.
    """
    further = prior.description.get("emas", [])
    if "history" in prior.description:
        raise CheckpointMismatchError(f"{prior.source} is a training state, expected a prior; take prior.safetensors or a snapshot")
    if ema != "ema" and ema not in further:
        raise CheckpointMismatchError(f"{prior.source} has no running mean {ema!r}; it has {', '.join(['ema', *further])}")
    if ema != "ema":
        return part_of(prior.tensors, f"{ema}.")
    return {name: tensor for name, tensor in prior.tensors.items() if not name.startswith(tuple(f"{mean}." for mean in further))}


def load_weights(module: nn.Module, prior: Checkpoint, *, optional: str | None = None) -> None:
    """Copy weights of a prior by name, or leave the module as it is; stored floats may have another precision.

    Args:
        optional: a part, by how its names begin, that the prior may lack (it keeps the module's values) or the module (it is left out).

    Raises:
        CheckpointMismatchError: a name or a shape differs, or a value is not finite; the message names the first ones.
    """
    own, weights = module.state_dict(), weights_of(prior)
    if optional:
        mine, theirs = ({name: one for name, one in names.items() if name.startswith(optional)} for names in (own, weights))
        weights = {name: tensor for name, tensor in weights.items() if mine or name not in theirs} | ({} if theirs else mine)
    floats = [name for name, tensor in weights.items() if name in own and tensor.is_floating_point() and own[name].is_floating_point()]
    weights |= {name: weights[name].to(own[name].dtype) for name in floats}
    require_fit(own, weights, prior.source, FIX_PRIOR)
    module.load_state_dict(weights)


def begin_with(state: State, prior: Checkpoint) -> None:
    """Weights of a trained prior as the first ones of a new run; its running means begin there too.

    A `spread` that the prior has not learned begins untrained; one that is not to be learned is left out.

    Raises:
        CheckpointMismatchError: they do not fit the network.
    """
    load_weights(state.denoiser.network, prior, optional="spread.")
    for mean in running_means(state).values():
        load_weights(mean.network, prior, optional="spread.")


@dataclass(frozen=True)
class Prior:
    """A trained denoiser with the units it lives in. `noise_maps`: whether it was trained on maps of sigma."""

    denoiser: Denoiser
    scaling: Scaling
    noise_maps: bool

    def __repr__(self) -> str:
        millions = sum(weights.numel() for weights in self.denoiser.parameters()) / 1e6
        maps = "trained on noise maps" if self.noise_maps else "trained on uniform noise"
        return f"Prior({type(self.denoiser.network).__name__}, {millions:.2f} million parameters, {maps}, {self.scaling})"


def network_choice(prior: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Name and options of the network of a prior.

    Raises:
        CheckpointMismatchError: the description is not that of a prior of this format.
    """
    description = prior.description
    if description.get("format") != FORMAT:
        raise CheckpointMismatchError(
            f"{prior.source}: got format {description.get('format')!r}, expected {FORMAT}; read it with the version that wrote it"
        )
    try:
        name, options = description["network"]["name"], dict(description["network"]["options"])
        Scaling(**description["scaling"]), float(description["sigma_data"]), str(description["corruption"]["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatchError(
            f"{prior.source} does not describe a prior ({type(error).__name__}: {error}), expected network, scaling, sigma_data and "
            "corruption in its header; export it again with `kedro run --pipelines training`"
        ) from error
    return name, options


def build_prior(checkpoint: Checkpoint, network: nn.Module) -> Prior:
    """Weights into `network`, frozen.

    Raises:
        CheckpointMismatchError: they do not fit.
    """
    load_weights(network, checkpoint)
    network_choice(checkpoint)
    description = checkpoint.description
    denoiser = Denoiser(network, description["sigma_data"]).requires_grad_(False).eval()
    return Prior(denoiser, Scaling(**description["scaling"]), description["corruption"]["name"] != "uniform")


def snapshot_of(state: Checkpoint, best_by: str) -> Checkpoint:
    """A prior to choose from: `prior_of`, the further running means, and its row of the history.

    Args:
        state: a packed training state.
        best_by: the column of the history by which the best is chosen.
    """
    prior, images = prior_of(state), state.description["images"]
    means = state.description.get("emas", [])
    further = {name: tensor for name, tensor in state.tensors.items() if name.startswith(tuple(f"{mean}." for mean in means))}
    figures = [row for row in state.description["history"] if round(row["kimg"] * 1000) == images][-1:]
    facts = {"figures": dict(*figures), "best_by": best_by} | ({"emas": means} if means else {})
    return Checkpoint(prior.tensors | further, prior.description | facts, state.source)


def snapshot_name(images: int) -> str:
    """What the snapshot after so many images is called; names sort as the counts do."""
    return f"prior-{images / 1000:010.3f}kimg"


def is_new_best(new: Checkpoint, best: Checkpoint | None) -> bool:
    """Whether a snapshot should take the place of the best one so far.

    A best one of another run gives way. So does one with as many images or more: a run goes on from an earlier state
    where it was stopped or begun anew, and will come there again.
    """
    column = new.description["best_by"]
    value = new.description["figures"].get(column, math.nan)
    if math.isnan(value):
        return False
    if best is None or identity(best.description) != identity(new.description):
        return True
    stale = best.description["images"] >= new.description["images"]
    return stale or better(value, best.description["figures"].get(column, math.nan), column)


def _means(snapshot: Checkpoint) -> Iterator[tuple[float, float, dict[str, Tensor]]]:
    """(images, sigma_rel, weights) of the power-function means of a snapshot; the first mean is stored as `ema`."""
    names = snapshot.description.get("averages", [])
    for stored, name in zip(["ema", *names[1:]], names, strict=False):
        if name.startswith(POWER):
            yield float(snapshot.description["images"]), float(name.removeprefix(POWER)), weights_of(snapshot, stored)


def _require_one_run(snapshots: Sequence[Checkpoint]) -> None:
    first, *others = (identity(snapshot.description) for snapshot in snapshots)
    differs = sorted({key for one in others for key in first | one if one.get(key) != first.get(key)})
    if differs:
        raise CheckpointMismatchError(f"the snapshots are of different runs: they differ in {', '.join(differs)}")


def reconstruct_prior(snapshots: Sequence[Checkpoint], sigma_rel: float) -> Checkpoint:
    """A prior whose weights are the mean of width `sigma_rel` at the last of the `snapshots` (or whole states) of one run.

    Sums are formed in double precision.

    Raises:
        CheckpointMismatchError: snapshots of different runs, or none with power-function means.
    """
    priors = [snapshot_of(one, "loss") if "history" in one.description else one for one in snapshots if one.description["images"]]
    priors.sort(key=lambda one: one.description["images"])
    means = [mean for prior in priors for mean in _means(prior)]
    if not means:
        raise CheckpointMismatchError("no snapshot holds power-function means; train with training.ema.name=power")
    _require_one_run(priors)
    times, widths, weights = zip(*means, strict=True)
    fractions = reconstruction(times, widths, times[-1], sigma_rel).tolist()
    tensors = {
        name: sum(fraction * part[name].double() for fraction, part in zip(fractions, weights, strict=True)).to(tensor.dtype)
        for name, tensor in weights_of(priors[-1]).items()
    }
    facts = {"images": priors[-1].description["images"], "averages": [f"{POWER}{sigma_rel}"]}
    return Checkpoint(tensors, identity(priors[-1].description) | facts)


ASKED = {  # how second opinions are asked and followed: in Bayer both networks are as good, and a learned gate no better than their mean
    "bayer": {"gate": 0, "turns": 4},
    "xtrans": {"gate": 24, "turns": 2},
}


def _in_units(name: str, options: Mapping[str, Any], own: Scaling, wanted: Scaling, source: str) -> dict[str, Any]:
    """Options of a network trained in units of `own`, for units of `wanted`."""
    if name == "mosaic_net":  # only what black and white are called changes
        return {**options, **{key: wanted.to_network(own.to_tile(options[key])) for key in ("black", "white")}, "trained": "all"}
    if own != wanted:
        raise ValueError(f"{source}: a {name} must be trained in the units of the general prior, {wanted}, got {own}")
    return dict(options)


def separated(prior: Checkpoint, part: str) -> Checkpoint:
    """The prior of one network of an assembled one, `general` or a mosaic's; a prior of one network as it is.

    Raises:
        ValueError: it has no such part.
    """
    name, options = network_choice(prior)
    if name != "experts":
        return prior
    parts = {"general": options["general"], **options["mosaics"]}
    if part not in parts:
        raise ValueError(f"{prior.source} has no network {part!r}; it has {', '.join(parts)}")
    prefix = "general." if part == "general" else f"mosaics.{part}.network."
    tensors = {key.removeprefix(prefix): tensor for key, tensor in prior.tensors.items() if key.startswith(prefix)}
    chosen = {"name": parts[part]["name"], "options": parts[part]["options"]}
    return Checkpoint(tensors, prior.description | {"network": chosen}, prior.source)


def _mean_of(prefix: str, prior: Checkpoint) -> dict[str, Tensor]:
    """Weights without those of its `spread`."""
    return {f"{prefix}.{name}": tensor for name, tensor in weights_of(prior).items() if not name.startswith("spread.")}


def assembled(general: Checkpoint, mosaics: Mapping[str, tuple[Checkpoint, tuple[float, float]]]) -> Checkpoint:
    """One prior: `general` for any noise map, and for quiet mosaics those of `mosaics`, each with its `fade`, see `Expert`.

    It keeps the units and the description of `general`; weights keep their type. A `spread` of theirs is left out, since it tells the
    errors of another mean: it is learned anew (training.learn=spread).

    Raises:
        ValueError: a network other than `mosaic_net` was trained in other units than `general`.
    """
    scaling = Scaling(**general.description["scaling"])
    tensors = _mean_of("general", general)
    choices = {}
    for mosaic, (prior, fade) in mosaics.items():
        name, options = network_choice(prior)
        units = _in_units(name, options, Scaling(**prior.description["scaling"]), scaling, prior.source)
        choices[mosaic] = {"name": name, "options": units, "fade": list(fade)}
        tensors |= _mean_of(f"mosaics.{mosaic}.network", prior)
    name, options = network_choice(general)
    light = {"black": scaling.to_network(-1.0), "white": scaling.to_network(1.0)}
    chosen = {"general": {"name": name, "options": options}, "mosaics": choices, **light, "sigma_data": 0.5}
    return Checkpoint(tensors, general.description | {"network": {"name": "experts", "options": chosen}}, general.source)


def with_second(prior: Checkpoint, networks: Mapping[str, MosaicNet]) -> Checkpoint:
    """An assembled prior whose answers to mosaics are seconded by `networks`, which have no front, as `ASKED`, with untrained gates.

    Its `spread` is left out, see `assembled`.

    Raises:
        ValueError: it is not assembled.
    """
    name, options = network_choice(prior)
    if name != "experts":
        raise ValueError(f"{prior.source}: its network is a {name}, and only experts can be seconded; assemble it first")
    tensors = {name: tensor for name, tensor in weights_of(prior).items() if not name.startswith(("spread.", "second."))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for mosaic, network in networks.items():
            second = Second(network, ASKED[mosaic]["gate"])
            tensors |= {f"second.{mosaic}.{name}": tensor for name, tensor in second.state_dict().items()}
    choices = {mosaic: {"depth": len(network.convs) + 2} | ASKED[mosaic] for mosaic, network in networks.items()}
    chosen = {"name": name, "options": options | {"second": choices}}
    return Checkpoint(tensors, prior.description | {"network": chosen}, prior.source)
