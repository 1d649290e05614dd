"""Guidance by the gradient of the likelihood, through the network."""

import torch
from torch import Tensor

from lowlight_kedro.diffusion.denoiser import DenoiserFunction
from lowlight_kedro.restoration.guidance.posterior import Posterior
from lowlight_kedro.restoration.measurement import Measurement


def dps(denoiser: DenoiserFunction, measurement: Measurement, *, strength: float = 1.0) -> Posterior:
    """Gradient of the likelihood at D, through the network (Chung et al. 2023), with per-site weights.

    D_y = D - strength sigma^2 grad_x (N / 2) ln sum e^2, e = (y - A D) / s, N the number of measured sites, per image.
    DPS divides its step by the norm of the residual; here the residual is whitened first, and the rule is that
    of a likelihood whose global scale is unknown, which makes it independent of the size of the frame.
    1 evaluation and 1 vector-Jacobian product.
    """
    count = measurement.mask.sum(dim=(1, 2, 3))

    def posterior(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean = denoiser(x, sigma)
            error = measurement.mask * (measurement.y - mean) / measurement.s
            gradient = torch.autograd.grad((count / 2 * error.square().sum(dim=(1, 2, 3)).log()).sum(), x)[0]
        return (mean - strength * sigma.square() * gradient).detach()

    return Posterior(denoiser=posterior)
