"""Passes of the posterior mean, each of which teaches the next: noise level, offsets, lines, black level, clipped photosites."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, first_of, standard_normal
from lowlight_kedro.diffusion.samplers import Sampler, finish, karras_sigmas, steps_within
from lowlight_kedro.restoration.guidance import Guidance
from lowlight_kedro.restoration.guidance.posterior import capabilities
from lowlight_kedro.restoration.measurement import Measurement, smoothed
from lowlight_kedro.restoration.observation import Learned, Observation
from lowlight_kedro.restoration.offsets import NO_OFFSETS
from lowlight_kedro.restoration.settings import Structure

LOCAL_REACH = 4  # pixels around a site whose measured values give the first estimate of its noise


@dataclass(frozen=True)
class Solution:
    """x0 (1, 3, H, W), network units, the measurement that it answers, and what was learned before, which is in that measurement."""

    x: Tensor
    measurement: Measurement
    learned: Learned


def mean_of(denoiser: DenoiserFunction, guidance: Guidance, measurement: Measurement) -> Tensor:
    """E[x0 | y].

    Raises:
        ValueError: the guidance can only sample.
    """
    posterior = guidance(denoiser, measurement)
    if posterior.mean is None:
        raise ValueError("this guidance does not know the posterior mean, it can only sample")
    return posterior.mean()


def _around(x: Tensor) -> Tensor:
    """The light that tells a noise level, from an estimate of x0: as smooth as the maps that priors learn from, which tell no detail."""
    return smoothed(x, LOCAL_REACH)


def refreshes_of(observation: Observation, wanted: int) -> int:
    """How many posterior means go before: none where they would teach nothing but the noise level, which the local mean tells as well."""
    return wanted if observation.teaches else 0


def most_refreshes(structure: Structure, wanted: int) -> int:
    """The most passes that `mean` makes before the last one."""
    return wanted + (wanted > 0 and (structure.lines or structure.saturation))


@dataclass(frozen=True)
class Passes:
    """What passes over one frame share; `parts`: the denoiser of parts of a frame, if that is another."""

    observation: Observation
    denoiser: DenoiserFunction
    guidance: Guidance
    parts: DenoiserFunction

    def teach(self, measurement: Measurement, learned: Learned, answers: bool) -> tuple[Tensor, Learned, bool]:
        """The posterior mean, what it taught beside what was `learned`, and whether that is nothing: then it is the answer already.

        Where it never `answers`, second opinions are not asked: they leave what was measured as it is.
        """
        posterior = self.guidance(self.denoiser, measurement)
        x = mean_of(self.denoiser if answers else first_of(self.denoiser), self.guidance, measurement)
        taught = self.observation.learn(measurement, x, learned, partial(mean_of, self.parts, self.guidance), posterior.std)
        nothing = not (self.observation.surely_teaches or taught.lines or taught.black is not None)
        return self.observation.without_black(x, taught, learned), taught, nothing

    def refreshed(self, learned: Learned, count: int) -> tuple[Tensor, Learned, Measurement | None]:
        """`count` of them from a local mean; and the measurement that the last one answers, if it is the answer already."""
        x = self.observation.first(LOCAL_REACH)
        for done in range(count):
            measurement = self.observation.measurement(_around(x) if done else x, learned)
            del x  # whole frames less while the prior works
            x, learned, nothing = self.teach(measurement, learned, not self.observation.surely_teaches)
            if nothing:
                return x, learned, measurement
        return x, learned, None


@torch.no_grad()
def mean(
    observation: Observation, denoiser: DenoiserFunction, guidance: Guidance, *, refreshes: int, parts: DenoiserFunction | None = None
) -> Solution:  # fmt: skip
    """See `estimates.posterior_mean`.

    One more pass where lines were found, of which D took most for light, or sites lie at a floor, whose estimate begins far too high. It
    leaves the row offsets as they are: with a prior that was learned, the first step towards them is the best.
    """
    passes = Passes(observation, denoiser, guidance, parts or denoiser)
    # with one pass only, offsets have to count as noise of each photosite
    x, learned, answered = passes.refreshed(Learned(observation.spread if refreshes else NO_OFFSETS), refreshes)
    if answered is not None:
        return Solution(x, answered, learned)
    measurement = observation.measurement(_around(x) if refreshes else x, learned)
    del x  # whole frames less while the prior works
    if refreshes and (learned.lines or observation.piled):
        offsets = learned.offsets
        x, learned, _ = passes.teach(measurement, learned, answers=False)
        learned = replace(learned, offsets=offsets)
        measurement = observation.measurement(_around(x), learned)
        del x
    return Solution(mean_of(denoiser, guidance, measurement), measurement, learned)


def _drawn(learned: Learned, generator: torch.Generator) -> Learned:
    """Offsets drawn from their posterior: a sample of x0 given a sample of them is a sample of both."""
    if learned.offsets is None:
        return learned
    return replace(learned, offsets=replace(learned.offsets, b=learned.offsets.draw(generator)))


@torch.no_grad()
def draw(
    observation: Observation, denoiser: DenoiserFunction, guidance: Guidance, *, sampler: Sampler, evaluations: int, sigma_min: float,
    sigma_max: float, refreshes: int, generator: torch.Generator, on_step: Callable[[], object] = lambda: None,
    parts: DenoiserFunction | None = None,
) -> Solution:  # fmt: skip
    """See `estimates.posterior_sample`."""
    offered = capabilities(guidance, denoiser)
    if offered.draw is None and offered.denoiser is None:
        raise ValueError("this guidance cannot sample; set inference.estimate=mean")
    spent = refreshes * offered.mean_evaluations
    if offered.mean is not None and 0 < spent < evaluations:
        first, learned, _ = Passes(observation, denoiser, guidance, parts or denoiser).refreshed(Learned(observation.spread), refreshes)
        evaluations -= spent
        light = _around(first)
    else:
        first = light = observation.first(LOCAL_REACH)
        learned = observation.learn_from_local_mean(first)
    measurement = observation.measurement(light, _drawn(learned, generator))
    del light
    posterior = guidance(denoiser, measurement)

    def states() -> Iterator[Tensor]:
        if posterior.draw is not None:
            return posterior.draw(first, evaluations, generator)
        highest = max(sigma_max, 2 * float(observation.noise_level(first, learned.apart).max()))
        x = first + highest * standard_normal(first, generator)
        return sampler(posterior.denoiser, x, karras_sigmas(steps_within(sampler, evaluations), sigma_min, highest), generator)

    return Solution(finish(states(), on_step), measurement, learned)
