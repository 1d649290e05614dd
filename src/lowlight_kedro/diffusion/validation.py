"""How well a denoiser denoises, by fixed images, noise and levels, so that curves can be compared; and where in a run it did best."""

from collections.abc import Sequence
from math import inf, isfinite, isnan, log10

import torch
from torch import Tensor
from torch.nn import functional as F

from lowlight_kedro.diffusion.denoiser import DenoiserFunction, spread_of, standard_normal
from lowlight_kedro.diffusion.draws import generator_for
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import History, State

DATA_RANGE = 2.0  # tiles are in [-1, 1]
LOWER_IS_BETTER = frozenset({"loss"})  # all other columns are figures of quality


@torch.no_grad()
def denoising_quality(
    denoiser: DenoiserFunction, tiles: Tensor, sigmas: Sequence[float], scaling: Scaling, seed: int, batch: int
) -> dict[str, float]:
    """PSNR (of the mean squared error over all tiles) and SSIM at each `sigma` (network units), keyed `psnr_<sigma>`, `ssim_<sigma>`.

    Of a denoiser that tells its spread also `chi2_<sigma>`, the mean of squared errors over the variance that it tells: 1 if it is true.

    tiles: (N, C, S, S) in the tile domain, on the denoiser's device; `batch` of them per pass. Read back once.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # a second, in every rank and command

    noise = standard_normal(tiles.cpu(), generator_for("validate", seed, 0)).to(tiles)
    sums, spread = tiles.new_zeros(len(sigmas), 3), spread_of(denoiser)
    for total, sigma in zip(sums, sigmas, strict=True):
        level = torch.full((1, 1, 1, 1), sigma, device=tiles.device)
        for clean, standard in zip(tiles.split(batch), noise.split(batch), strict=True):
            x = scaling.to_network(clean) + level * standard
            mean = denoiser(x, level)
            denoised = scaling.to_tile(mean).clamp(-1, 1)
            similarity = torch.as_tensor(structural_similarity_index_measure(denoised, clean, data_range=DATA_RANGE))
            off = scaling.to_network(clean) - mean
            chi2 = torch.zeros_like(similarity) if spread is None else (off / spread(x, level.expand(x.shape), mean)).square().mean()
            total += torch.stack([F.mse_loss(denoised, clean), similarity, chi2]) * (len(clean) / len(tiles))
    figures = {}
    for sigma, (error, similarity, chi2) in zip(sigmas, sums.tolist(), strict=True):
        figures[f"psnr_{sigma:g}"] = 10 * log10(DATA_RANGE**2 / error) if error else inf
        figures[f"ssim_{sigma:g}"] = similarity
        figures |= {} if spread is None else {f"chi2_{sigma:g}": chi2}
    return figures


def validation_row(state: State, tiles: Tensor, sigmas: Sequence[float], scaling: Scaling, seed: int, batch: int) -> dict[str, float]:
    """`denoising_quality` of the running mean, and of the weights themselves with `raw_` before the names."""
    mean = denoising_quality(state.ema, tiles, sigmas, scaling, seed, batch)
    was_training = state.denoiser.training
    raw = denoising_quality(state.denoiser.eval(), tiles, sigmas, scaling, seed, batch)
    state.denoiser.train(was_training)
    return mean | {f"raw_{name}": figure for name, figure in raw.items()}


def better(value: float, best: float, column: str) -> bool:
    """Whether `value` of a column of the history is better than `best`; an equal one is not, any number is better than NaN."""
    if isnan(best):
        return not isnan(value)
    return value < best if column in LOWER_IS_BETTER else value > best


def _scores(history: History, column: str) -> list[tuple[int, float]]:
    """(row, figure) where there is one, with the sign that makes larger better."""
    sign = -1 if column in LOWER_IS_BETTER else 1
    return [(number, sign * row[column]) for number, row in enumerate(history) if isfinite(row.get(column, inf))]


def best_row(history: History, column: str) -> int | None:
    """Number of the row with the best figure in `column`, the first of equals; None without any."""
    scores = [(score, -number) for number, score in _scores(history, column)]
    return -max(scores)[1] if scores else None


def ticks_without_gain(history: History, column: str, min_delta: float) -> int:
    """Rows with a figure since the last one that was better than all before by more than `min_delta`."""
    best, waited = -inf, 0
    for _, score in _scores(history, column):
        best, waited = (score, 0) if score > best + min_delta else (best, waited + 1)
    return waited
