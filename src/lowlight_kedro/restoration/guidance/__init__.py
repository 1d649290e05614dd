"""Guidance: the prior's denoiser, E[x0 | x_t], and a measurement become the posterior. All methods take per-site noise."""

from lowlight_kedro.restoration.guidance.ddrm import ddrm
from lowlight_kedro.restoration.guidance.diffpir import diffpir
from lowlight_kedro.restoration.guidance.dps import dps, dps_norm
from lowlight_kedro.restoration.guidance.mmps import mmps
from lowlight_kedro.restoration.guidance.noise_map import noise_map
from lowlight_kedro.restoration.guidance.pigdm import pigdm
from lowlight_kedro.restoration.guidance.posterior import Guidance
from lowlight_kedro.restoration.guidance.vamp import vamp

GUIDANCE: dict[str, Guidance] = {
    "ddrm": ddrm, "diffpir": diffpir, "dps": dps, "dps_norm": dps_norm, "mmps": mmps, "noise_map": noise_map, "pigdm": pigdm,
    "vamp": vamp,
}  # fmt: skip
