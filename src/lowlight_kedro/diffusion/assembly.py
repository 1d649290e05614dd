"""Priors that were trained apart as one prior, whose network is `experts`."""

from collections.abc import Mapping
from typing import Any

from lowlight_kedro.diffusion.checkpoint import Checkpoint, network_choice, weights_of
from lowlight_kedro.diffusion.scaling import Scaling


def _in_units(options: Mapping[str, Any], own: Scaling, wanted: Scaling) -> dict[str, Any]:
    """Options of a `mosaic_net` trained in units of `own`, for units of `wanted`: only what black and white are called changes."""
    moved = {name: wanted.to_network(own.to_tile(options[name])) for name in ("black", "white")}
    return {**options, **moved, "trained": "all"}


def assembled(general: Checkpoint, mosaics: Mapping[str, Checkpoint], fade: tuple[float, float]) -> Checkpoint:
    """One prior: `general` for any noise map, and each of `mosaics` (`mosaic_net`s) for quiet mosaics of its pattern.

    It keeps the units and the description of `general`; weights keep their type.

    Raises:
        ValueError: a network of `mosaics` is no `mosaic_net`.
    """
    scaling = Scaling(**general.description["scaling"])
    tensors = {f"general.{name}": tensor for name, tensor in weights_of(general).items()}
    choices = {}
    for mosaic, prior in mosaics.items():
        name, options = network_choice(prior)
        if name != "mosaic_net":
            raise ValueError(f"{prior.source}: expected a prior with network mosaic_net, got {name}")
        choices[mosaic] = {"name": name, "options": _in_units(options, Scaling(**prior.description["scaling"]), scaling)}
        tensors |= {f"mosaics.{mosaic}.{weight}": tensor for weight, tensor in weights_of(prior).items()}
    name, options = network_choice(general)
    chosen = {"general": {"name": name, "options": options}, "mosaics": choices, "fade": list(fade), "sigma_data": 0.5}
    return Checkpoint(tensors, general.description | {"network": {"name": "experts", "options": chosen}}, general.source)
