"""What all restoration jobs share: the prior and the guidance, checked together before any frame is read."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch

from lowlight_kedro.api import LoadedPrior, Settings, checked_guidance, load_prior
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.samplers import SAMPLERS
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.plugins import code_of
from lowlight_kedro.restoration.corruption import MOSAICS
from lowlight_kedro.restoration.estimates import expected_evaluations
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.guidance.posterior import SIGMA_UNKNOWN, capabilities
from lowlight_kedro.restoration.settings import Window
from lowlight_kedro.sensor.cfa import BAYER_RGGB, UNFILTERED, Cfa, masks
from lowlight_kedro.sensor.dark_signal import Darks
from lowlight_kedro.sensor.noise import NOISE_MODELS

TIMED_SIDE, TIMED_LEVEL = 256, 0.1  # pixels, and noise in network units: of no influence on the time


def unfamiliar_mosaic(description: Mapping[str, Any], cfa: Cfa) -> str | None:
    """What to be told where a prior with `description` was trained on mosaics, but none like `cfa`; None = nothing."""
    trained = description["corruption"].get("options", {}).get("mosaics")
    if trained is None or cfa == UNFILTERED or len(cfa) in {len(MOSAICS[name]) for name in trained if name in MOSAICS}:
        return None
    here = next(name for name, known in MOSAICS.items() if len(known) == len(cfa))
    return f"the prior was trained on mosaics {', '.join(trained) or 'of no kind'}, this frame is {here}: expect a worse result"


@dataclass(frozen=True)
class Restoration:
    """What all restoration jobs share; each worker builds the network once."""

    checkpoint: Checkpoint
    sensor: SensorOptions
    options: InferenceOptions
    calibrations: Sequence[Mapping[str, Any]]
    darks: Sequence[Darks] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # a worker builds its own network

    @cached_property
    def prior(self) -> LoadedPrior:
        """See `api.load_prior`."""
        return load_prior(self.checkpoint, self.options.device, self.options.window.precision)

    @cached_property
    def guidance(self) -> Guidance:
        """The chosen guidance, checked against the prior."""
        self.options.guidance.check("guidance", GUIDANCE)
        return checked_guidance(self.options.guidance.name, self.prior, self.options.estimate, self.options.guidance.chosen)

    @property
    def code(self) -> list[dict[str, str]]:
        """Of the plug-ins from elsewhere that take part, see `code_of`."""
        options, network = self.options, self.checkpoint.description["network"]["name"]
        return [
            code_of("guidance", GUIDANCE, [options.guidance.name]), code_of("sampler", SAMPLERS, [options.sample.sampler]),
            code_of("network", NETWORKS, [network]), code_of("noise_model", NOISE_MODELS, [self.sensor.noise.model]),
            options.demosaicer.code(),
        ]  # fmt: skip

    def expected_seconds(self, pixels: float) -> tuple[int, float]:
        """How often the network is evaluated for a frame, and about how many seconds that takes here, measured on a small image."""
        settings = self.settings
        evaluations = settings.symmetries * expected_evaluations(
            settings.estimate, capabilities(self.guidance, self.prior.built.denoiser), refreshes=settings.refreshes,
            sampling=settings.sampling, probing=settings.probing,
        )  # fmt: skip
        image, taken = torch.zeros(1, 3, TIMED_SIDE, TIMED_SIDE), []
        level = torch.full_like(image, TIMED_LEVEL)
        if settings.estimate == "mean":  # a mosaic's missing values are asked for twice; in a draw every value has a level
            level[0, ~torch.from_numpy(masks(BAYER_RGGB, (TIMED_SIDE, TIMED_SIDE)))] = SIGMA_UNKNOWN
        for _ in range(2):
            begin = time.perf_counter()
            self.prior(image, level)
            taken.append(time.perf_counter() - begin)
        return evaluations, evaluations * min(taken) * pixels / TIMED_SIDE**2

    @property
    def settings(self) -> Settings:
        """What `api.restore` needs of the options."""
        options, window = self.options, self.options.window
        return Settings(
            estimate=options.estimate, refreshes=options.refreshes, symmetries=options.symmetries, seed=options.seed,
            sampling=options.sample, probing=options.uncertainty, highlights=options.highlights,
            structure=options.measurement, window=Window(window.size, window.memory_mb, window.tolerance),
        )  # fmt: skip
