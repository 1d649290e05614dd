"""The test bed of the guidance: a Gaussian prior, truths drawn from it, a measurement of them, and the exact posterior."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lowlight_kedro.diffusion.samplers import Sampler, finish, heun, karras_sigmas, steps_within
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS, masks
from tests.diffusion.gaussian import Gaussian

SHAPE = (3, 6, 6)
MASKS = {
    "rgb": torch.ones(1, *SHAPE, dtype=torch.float64),
    "bayer": torch.from_numpy(masks(BAYER_RGGB, SHAPE[1:])).double()[None],
    "xtrans": torch.from_numpy(masks(XTRANS, SHAPE[1:])).double()[None],
}
NOISES = {"homoscedastic": (0.15, 0.15), "heteroscedastic": (0.3, 0.05)}  # s in the left and the right half


@dataclass(frozen=True)
class Scene:
    """`measurement` holds one y per truth; `mean` (B, 3, H, W) and `covariance` (N, N) are those of the posterior."""

    prior: Gaussian
    truth: Tensor
    measurement: Measurement
    mean: Tensor
    covariance: Tensor

    @property
    def std(self) -> Tensor:
        return self.covariance.diag().sqrt().reshape(1, *self.prior.shape)


def white(std: float = 0.5) -> Gaussian:
    """Independent values, mean 0: the prior that diagonal methods assume."""
    count = SHAPE[0] * SHAPE[1] * SHAPE[2]
    return Gaussian(torch.zeros(count, dtype=torch.float64), std**2 * torch.eye(count, dtype=torch.float64), SHAPE)


def scene(mask: str, noise: str = "heteroscedastic", draws: int = 1, seed: int = 0, prior: Gaussian | None = None) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    prior, observed = prior or Gaussian.smooth(SHAPE), MASKS[mask]
    s = torch.full((1, *SHAPE), NOISES[noise][0], dtype=torch.float64)
    s[..., SHAPE[2] // 2 :] = NOISES[noise][1]
    truth = prior.sample(draws, generator)
    y = observed * (truth + s * normal(truth, generator))
    mean, covariance = prior.posterior(y.flatten(1), (observed / s.square()).flatten())
    return Scene(prior, truth, Measurement(y, observed, s), mean.reshape(y.shape), covariance)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, generator=generator)


def level(sigma: float) -> Tensor:
    return torch.full((1, 1, 1, 1), sigma, dtype=torch.float64)


def given_both(prior: Gaussian, measurement: Measurement, x: Tensor, sigma: float) -> Tensor:
    """The exact E[x0 | x_t, y]: two independent looks, weighed by their precisions into one."""
    precision_y, precision_x = measurement.mask / measurement.s.square(), torch.full_like(x[:1], sigma**-2)
    z = (measurement.y * precision_y + x * precision_x) / (precision_y + precision_x)
    return prior.posterior(z.flatten(1), (precision_y + precision_x).flatten())[0].reshape(x.shape)


def repeated(measurement: Measurement, times: int) -> Measurement:
    """The same measurement as a batch, so that a batch of samples can be drawn."""
    return Measurement(*(t.expand(times, *t.shape[1:]) for t in (measurement.y, measurement.mask, measurement.s)))


def drawn(
    posterior: Posterior, first: Tensor, evaluations: int, generator: torch.Generator, sampler: Sampler = heun,
    sigma_min: float = 0.01, sigma_max: float = 10.0,
) -> Tensor:  # fmt: skip
    """Samples by the method's own sampler, else by `sampler` over its denoiser."""
    if posterior.draw is not None:
        return finish(posterior.draw(first, evaluations, generator))
    assert posterior.denoiser is not None
    x = first + sigma_max * normal(first, generator)
    sigmas = karras_sigmas(steps_within(sampler, evaluations), sigma_min, sigma_max)
    return finish(sampler(posterior.denoiser, x, sigmas, generator))


def estimated(posterior: Posterior, first: Tensor, evaluations: int, generator: torch.Generator) -> Tensor:
    """The mean where a method knows no more."""
    if posterior.draw is None and posterior.denoiser is None:
        assert posterior.mean is not None
        return posterior.mean()
    return drawn(posterior, first, evaluations, generator)


@dataclass
class Counted:
    """A denoiser that counts its evaluations and the vector-Jacobian products through them."""

    denoiser: object
    evaluations: int = field(default=0)
    products: int = field(default=0)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.evaluations += 1
        mean = self.denoiser(x, sigma)
        if mean.requires_grad:
            mean.register_hook(self._product)
        return mean

    def _product(self, gradient: Tensor) -> None:
        self.products += 1
