"""Guidance: the prior's denoiser, E[x0 | x_t], and a measurement become the posterior. All methods take per-site noise."""

from lowlight_kedro.restoration.guidance.gradient_free import ddrm, diffpir, vamp
from lowlight_kedro.restoration.guidance.gradients import dps, dps_norm, mmps, pigdm
from lowlight_kedro.restoration.guidance.noise_map import noise_map
from lowlight_kedro.restoration.guidance.posterior import Guidance

GUIDANCE: dict[str, Guidance] = {
    "ddrm": ddrm, "diffpir": diffpir, "dps": dps, "dps_norm": dps_norm, "mmps": mmps, "noise_map": noise_map, "pigdm": pigdm,
    "vamp": vamp,
}  # fmt: skip
