"""EDM preconditioning (Karras et al. 2022, table 1), per pixel when `sigma` is a map."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class DenoiserFunction(Protocol):
    """What a denoiser is to a sampler: E[x0 | x] for noise of standard deviation `sigma`."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`x` (B, C, H, W); `sigma` broadcastable to it; returns the shape of `x`."""


def coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), c_in = 1 / sqrt(s^2 + sd^2); shape of `sigma`."""
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data * total.rsqrt(), total.rsqrt()


class Denoiser(nn.Module):
    """D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), F the network, c_noise = ln(s) / 4; see `coefficients`.

    Where the network has a part `second`, what is above is `first`, and D(x; sigma) = second(asked(x, sigma), sigma).

    Args:
        network: F, called with the scaled image (B, C, H, W) and c_noise of the same shape.
        sigma_data: sd, standard deviation of the data in network units.
    """

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`coefficients` for this denoiser's data."""
        return coefficients(sigma, self.sigma_data)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x]; `sigma` is broadcastable to `x`, positive."""
        mean = self.asked(x, sigma)
        return mean if self.second is None else self.second(mean, sigma)

    def asked(self, x: Tensor, sigma: Tensor) -> Tensor:
        """What second opinions are asked of; without them the answer."""
        mean = self.first(x, sigma)
        return mean if self.second is None else self.second.asked(mean, x, sigma)  # type: ignore[operator, no-any-return]

    def first(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] before second opinions."""
        answer = self.raw(self.coefficients(sigma)[2] * x, sigma)
        c_skip, c_out, _ = self.coefficients(sigma)  # again, so that nothing lies about while the network works
        return c_skip * x + c_out * answer

    def raw(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        """The network's own output F(c_in x; ln(sigma) / 4)."""
        c_noise = (sigma.log() / 4).expand(scaled.shape)
        return self.network(scaled, c_noise)

    @property
    def second(self) -> nn.Module | None:
        """(D, sigma) -> D, where the network has second opinions; see `networks.experts.Seconds`."""
        return getattr(self.network, "second", None)

    @property
    def spread(self) -> nn.Module | None:
        """(x, sigma, D) -> standard deviation of P(x0 | x), where the network has learned it; see `networks.pyramid.Spread`."""
        return getattr(self.network, "spread", None)


def spread_of(denoiser: DenoiserFunction) -> Any:
    """What tells the standard deviation beside the mean, (x, sigma, D) -> std; None for a denoiser that has none, as a function."""
    return getattr(denoiser, "spread", None)


def first_of(denoiser: DenoiserFunction) -> DenoiserFunction:
    """What answers before second opinions, (x, sigma) -> D; a denoiser that has none, as a function, is that itself."""
    return getattr(denoiser, "first", denoiser)


def denoising_losses(
    denoiser: Denoiser, x0: Tensor, x: Tensor, sigma: Tensor, weight: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """EDM's loss of the mean, and -ln N(x0; D, std^2) of its `spread` but for a constant, 0 without one; per image, (B,) each.

    The first is the mean of (D - x0)^2 / c_out^2, which is (F - target)^2 of the network itself. It is written with F's own target,
    (x0 - c_skip x) / c_out, because the quotient of two tiny numbers at small sigma is then never formed from D. To the second D is a
    number: what is learned of the mean does not depend on whether there is a spread.

    Args:
        x0: clean images (B, C, H, W). x: the same with noise. sigma: its level. weight: of the first, per pixel.
    """
    c_skip, c_out, c_in = denoiser.coefficients(sigma)
    error = denoiser.raw(c_in * x, sigma) - (x0 - c_skip * x) / c_out
    second = getattr(denoiser, "second", None)  # a function has none
    if second is not None:
        mean = x0 + c_out * error
        error = error + (second(second.asked(mean, x, sigma), sigma) - mean) / c_out
    loss = (weight * error.square()).mean(dim=(1, 2, 3))
    spread = spread_of(denoiser)
    if spread is None:
        return loss, torch.zeros_like(loss)
    off = (c_out * error).detach().float()
    std = spread(x, sigma.expand(x.shape), x0 + off)
    return loss, ((off / std).square() / 2 + std.log()).mean(dim=(1, 2, 3))


def denoising_loss(denoiser: Denoiser, x0: Tensor, x: Tensor, sigma: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """EDM's loss, (B,): the first of `denoising_losses`."""
    return denoising_losses(denoiser, x0, x, sigma, weight)[0]


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of the shape, type and device of `like`, from `generator`."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
