"""Networks F(scaled image, c_noise) -> image by name; both inputs (B, C, H, W), sides divisible by `multiple`."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lowlight_kedro.diffusion.networks.embedded import adm, ddpmpp
from lowlight_kedro.diffusion.networks.experts import experts
from lowlight_kedro.diffusion.networks.mosaic import mosaic_net
from lowlight_kedro.diffusion.networks.pyramid import pyramid_unet, with_spread
from lowlight_kedro.diffusion.networks.unet import raw_unet
from lowlight_kedro.plugins import configured

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "adm": adm,
    "ddpmpp": ddpmpp,
    "experts": experts,
    "mosaic_net": mosaic_net,
    "pyramid_unet": pyramid_unet,
    "raw_unet": raw_unet,
}


def built_network(description: Mapping[str, Any]) -> nn.Module:
    """The network that the description of a prior tells, its weights those of an untrained one.

    Raises:
        ValueError: there is no network of that name, or it does not take these options.
    """
    chosen = description["network"]
    network = configured("network", NETWORKS, chosen["name"], chosen["options"])()
    return with_spread(network, chosen["spread"], description["sigma_data"]) if chosen.get("spread") else network
