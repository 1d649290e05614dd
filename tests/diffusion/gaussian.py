"""The test bed of a prior: N(mean, C) on small images, whose denoiser and posterior are known in closed form."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """mean (N,), covariance (N, N), float64; images of `shape` (C, H, W) are flattened."""

    mean: Tensor
    covariance: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def smooth(cls, shape=(3, 4, 4), std=0.5, reach=1.5, seed=0) -> "Gaussian":
        """Neighbours and channels correlated, as in photographs."""
        channels, height, width = shape
        c, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
        places = torch.stack([2 * c.flatten(), y.flatten(), x.flatten()])
        square = (places[:, :, None] - places[:, None, :]).square().sum(0)
        covariance = std**2 * (torch.exp(-square / (2 * reach**2)) + 0.05 * torch.eye(channels * height * width, dtype=torch.float64))
        mean = 0.3 * torch.randn(len(covariance), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return cls(mean, covariance, shape)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(count, len(self.mean), dtype=torch.float64, generator=generator)
        return (self.mean + noise @ torch.linalg.cholesky(self.covariance).T).reshape(count, *self.shape)

    def posterior(self, y: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, N) and covariance (N, N) given y (B, N) measured with `precision` (N,); 0 = not measured."""
        # the gain form needs no inverse of the prior's covariance
        noise = torch.diag(precision.clamp(min=1e-12).reciprocal())
        gain = torch.linalg.solve(self.covariance + noise, self.covariance).T
        return self.mean + (y - self.mean) @ gain.T, self.covariance - gain @ self.covariance

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Variances (N,) and directions (N, N) of the prior's own axes."""
        return torch.linalg.eigh(self.covariance)

    def denoiser(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x], exact, for a level per image or one map for the whole batch."""
        if sigma[0].numel() > 1:
            return self.posterior(x.flatten(1), sigma.expand(x.shape)[0].flatten().pow(-2))[0].reshape(x.shape)
        values, directions = self.axes
        gain = values / (values + sigma.reshape(-1, 1).square())
        return (self.mean + ((x.flatten(1) - self.mean) @ directions * gain) @ directions.T).reshape(x.shape)
