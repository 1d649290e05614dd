"""Guidance: the prior's denoiser, E[x0 | x_t], and a measurement become the posterior. All methods take per-site noise."""

from lowlight_kedro.restoration.guidance.diffpir import diffpir
from lowlight_kedro.restoration.guidance.dps import dps
from lowlight_kedro.restoration.guidance.noise_map import noise_map
from lowlight_kedro.restoration.guidance.posterior import Guidance

GUIDANCE: dict[str, Guidance] = {"diffpir": diffpir, "dps": dps, "noise_map": noise_map}
