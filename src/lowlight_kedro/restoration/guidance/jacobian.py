"""Derivatives of the denoiser: p(x0 | x_t) has the covariance V = sigma^2 J, J = dD/dx."""

from collections.abc import Callable

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction


def with_covariance(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, *, products: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x; sigma) and u -> sigma^2 J^T u, one vector-Jacobian product a call, for up to `products` calls.

    Second-order Tweedie: Cov(x0 | x_t) = sigma^2 J (Efron 2011). The memory of the graph is freed with the last call.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        mean = denoiser(x, sigma)
    left = products

    def covariance(u: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        return sigma.square() * torch.autograd.grad(mean, x, u, retain_graph=left > 0)[0]

    return mean.detach(), covariance


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per image, (B, 1, 1, 1)."""
    return (a * b).sum(dim=(1, 2, 3), keepdim=True)
