"""Networks F(scaled image, c_noise) -> image by name; both inputs (B, C, H, W), sides divisible by `multiple`."""

from collections.abc import Callable

from torch import nn

from lowlight_kedro.diffusion.networks.embedded import adm, ddpmpp
from lowlight_kedro.diffusion.networks.experts import experts
from lowlight_kedro.diffusion.networks.mosaic import mosaic_net
from lowlight_kedro.diffusion.networks.pyramid import pyramid_unet
from lowlight_kedro.diffusion.networks.unet import raw_unet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "adm": adm,
    "ddpmpp": ddpmpp,
    "experts": experts,
    "mosaic_net": mosaic_net,
    "pyramid_unet": pyramid_unet,
    "raw_unet": raw_unet,
}
