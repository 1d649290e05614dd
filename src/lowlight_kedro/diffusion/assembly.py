"""Priors that were trained apart as one prior, whose network is `experts`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lowlight_kedro.diffusion.checkpoint import Checkpoint, network_choice, weights_of
from lowlight_kedro.diffusion.networks.mosaic import MosaicNet
from lowlight_kedro.diffusion.networks.second import Second
from lowlight_kedro.diffusion.scaling import Scaling

GATE = 24  # channels


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
    """An assembled prior whose answers to mosaics are seconded by `networks`, which have no front, by gates that are untrained.

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
            tensors |= {f"second.{mosaic}.{name}": tensor for name, tensor in Second(network, GATE).state_dict().items()}
    choices = {mosaic: {"depth": len(network.convs) + 2, "gate": GATE} for mosaic, network in networks.items()}
    chosen = {"name": name, "options": options | {"second": choices}}
    return Checkpoint(tensors, prior.description | {"network": chosen}, prior.source)
