"""What all restoration jobs share: the prior and the guidance, checked together before any frame is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch

from lowlight_kedro.diffusion.checkpoint import Checkpoint, Prior, build_prior, digest, network_choice
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.pipelines.device import Precision, choose_device, choose_precision
from lowlight_kedro.pipelines.inference.options import InferenceOptions
from lowlight_kedro.pipelines.sensor_options import SensorOptions
from lowlight_kedro.plugins import choose, configured
from lowlight_kedro.restoration.allocator import keep_freed_memory
from lowlight_kedro.restoration.corruption import MOSAICS
from lowlight_kedro.restoration.estimates import missing_capability
from lowlight_kedro.restoration.guidance import GUIDANCE, Guidance
from lowlight_kedro.restoration.guidance.posterior import capabilities
from lowlight_kedro.restoration.refresh import Structure
from lowlight_kedro.sensor.cfa import Cfa


def load_prior(prior: Checkpoint, options: InferenceOptions) -> Prior:
    """The network with its weights, on the device of `options`."""
    keep_freed_memory()
    name, chosen = network_choice(prior)
    built = build_prior(prior, choose("network", NETWORKS, name)(**chosen))
    built.denoiser.to(choose_device(options.device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster
    return built


def _guidance(prior: Prior, options: InferenceOptions) -> Guidance:
    """The chosen guidance, checked against what the prior can do and what the estimate needs.

    Raises:
        ValueError: guidance, estimate and prior do not go together.
    """
    name, guidance = options.guidance.name, choose("guidance", GUIDANCE, options.guidance.name)
    if getattr(guidance, "needs_noise_maps", False) and not prior.noise_maps:
        raise ValueError(
            f"guidance {name!r} needs a prior trained on noise maps; this one saw uniform noise only: "
            "train with training.corruption.name=noise_map, or choose guidance dps or mmps"
        )
    bound = configured("guidance", GUIDANCE, name, options.guidance.chosen)
    lacks = missing_capability(options.estimate, capabilities(bound, prior.denoiser))
    if lacks:
        raise ValueError(f"estimate {options.estimate!r}: guidance {name!r} {lacks}")
    return bound


def unfamiliar_mosaic(description: Mapping[str, Any], cfa: Cfa) -> str | None:
    """What to be told where a prior with `description` was trained on mosaics, but none like `cfa`; None = nothing."""
    trained = description["corruption"].get("options", {}).get("mosaics")
    if trained is None or len(cfa) in {len(MOSAICS[name]) for name in trained if name in MOSAICS}:
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

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # a worker builds its own network

    @cached_property
    def prior(self) -> Prior:
        """See `load_prior`."""
        return load_prior(self.checkpoint, self.options)

    @cached_property
    def prior_digest(self) -> str:
        """What tells this prior from others, in records and keys."""
        return digest(self.checkpoint)

    @cached_property
    def guidance(self) -> Guidance:
        """The chosen guidance, checked against the prior."""
        return _guidance(self.prior, self.options)

    @property
    def device(self) -> torch.device:
        """Where windows are evaluated."""
        return choose_device(self.options.device)

    @cached_property
    def precision(self) -> Precision:
        """Of the network, on this device."""
        return choose_precision(self.options.window.precision, self.device)

    @property
    def structure(self) -> Structure:
        """How the parts of the noise are handled."""
        return Structure(**self.options.measurement.model_dump())
