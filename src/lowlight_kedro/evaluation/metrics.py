"""Metrics of one image against another; images (3, H, W) in [0, 1], data_range 1."""

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

Metric = Callable[[Tensor, Tensor], Tensor]


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, data_range 1; images (1, 3, H, W)."""
    return peak_signal_noise_ratio(image, truth, data_range=1.0)


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5), data_range 1; images (1, 3, H, W)."""
    return torch.as_tensor(structural_similarity_index_measure(image, truth, data_range=1.0))


METRICS: dict[str, Metric] = {"psnr": psnr, "ssim": ssim}


def measure(image: NDArray, truth: NDArray, metrics: dict[str, Metric]) -> dict[str, float]:
    """All `metrics` of `image` against `truth`, both clipped to [0, 1]."""
    pair = [torch.from_numpy(part).float().clamp(0, 1)[None] for part in (image, truth)]
    return {name: float(metric(*pair)) for name, metric in metrics.items()}
