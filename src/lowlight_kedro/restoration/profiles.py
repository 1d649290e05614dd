"""What D, the posterior mean, leaves of offsets that whole lines share: profiles of y - D, and how much of an offset they show.

D takes most of a slow offset for light, so that the sum over all sites of a line hardly shows it. Its colours give it away: an offset is
the same number of DN in all channels, light is not, and D, which believes what is seen of green, leaves more of it in red and blue.
So at slow frequencies the profiles u (3,) of the channels are weighed against each other: with K (3,) what they show of an offset b and
R (3, 3) the covariance of what they show of noise and light,

    u = K b + e,   b = K^T R^-1 u / K^T R^-1 K +- (K^T R^-1 K)^-1/2.

R is measured beside the axis of the spectrum, where there is noise and light but nothing that a whole line shares, and K on a part of the
frame, by asking D again with random offsets added. Fast offsets need no colours, and lines of a mosaic do not have all of them.

What a line's noise tells is a fourth channel, with K = 1, see `loudness`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_kedro.restoration.measurement import Measurement, at_rows, strips

BESIDE = 6  # frequencies beside the axis that tell R
SMOOTH = 3  # frequencies on either side over which powers are averaged
SLOW = 6  # what is slower than this fraction of the highest frequency is told by all channels
PERIOD = 6  # lines after which every mosaic repeats
LEAST_RESPONSE = 0.03  # of an offset that y - D must show: it is divided by
PART, PERIODS = 192, 12  # photosites: side of the part on which the response is measured, and of whole periods of Bayer and X-Trans
TRIED, TILT = 0.2, 0.5  # standard deviation of the offsets that are tried, in units of the noise of a site; slow ones are larger, f^-TILT
BINS = np.array([1, 3, 6, 12, 24, 48]) / PART  # frequencies between which the response of the channels is averaged
LIMITS = ((-7.0, 0.3), (3.0, 4.0))  # of ln f0 and a
LEAST_NOISE = 1e-3  # of what the channels show together, that each has of its own: light that D missed may have one colour everywhere
LOUD_SMOOTH = 10  # frequencies over which the error of what loudness tells is averaged: it is nearly white
MISJUDGED = 0.3  # relative error of K where the offsets are as loud as the noise: D takes a loud band differently from a faint one
TINY = 1e-12

Estimates = tuple[NDArray, NDArray]  # by frequency, and the variance of their errors


def dct(values: NDArray, axis: int = -1) -> NDArray:
    """Orthonormal cosine transform: white noise stays white."""
    from scipy.fft import dct  # slow to import

    return np.asarray(dct(values, axis=axis, norm="ortho"))


def idct(values: NDArray) -> NDArray:
    """The inverse of `dct` along the last axis."""
    from scipy.fft import idct  # slow to import

    return np.asarray(idct(values, norm="ortho"))


def smoothed(power: NDArray, reach: int = SMOOTH) -> NDArray:
    """Mean over so many frequencies on either side (..., L), edges repeated."""
    from scipy.ndimage import uniform_filter1d  # slow to import

    return np.asarray(uniform_filter1d(power, 2 * reach + 1, axis=-1, mode="nearest"))


@dataclass(frozen=True)
class Response:
    """The fraction of an offset that y - D shows, f in units of the highest frequency.

    K(f) = 1 / (1 + (f0 / f)^a) over all sites of a line: noise over noise and light that falls as a power of f.

    Attributes:
        product, square: (3, n) and (n,) of least squares within BINS: what sites of one channel show times the offsets, and their squares.
    """

    f0: float
    a: float
    product: NDArray
    square: NDArray

    def __call__(self, frequency: NDArray) -> NDArray:
        """K at frequencies in [0, 1], never so small that an error divided by it would be no offset any more."""
        return np.maximum(1 / (1 + (self.f0 / np.maximum(frequency, TINY)) ** self.a), LEAST_RESPONSE)

    def of_channels(self, frequency: NDArray) -> NDArray:
        """K (3, n) at n frequencies, linear in ln f between the bins."""
        middle = np.log(BINS[:-1] * BINS[1:]) / 2
        return np.stack(
            [np.interp(np.log(np.maximum(frequency, TINY)), middle, one) for one in self.product / np.maximum(self.square, TINY)]
        )


@dataclass(frozen=True)
class Profiles:
    """Of the L lines of one direction, by slowest waves along the line.

    Attributes:
        scores, gram: of each channel, and their information, (3, L, 1 + BESIDE).
        loud: offsets by how loud the noise is, (L, 1 + BESIDE), signal units but for a constant; None: nothing tells the prior's doubt.
    """

    scores: NDArray
    gram: NDArray
    loud: NDArray | None = None

    @property
    def complete(self) -> bool:
        """Whether every line has a measured site."""
        return bool((self.gram.sum(axis=0) > 0).all())

    @property
    def root(self) -> NDArray:
        """(L,) what an offset is multiplied by, so that its noise is 1."""
        return np.sqrt(self.gram[..., 0].sum(axis=0))

    def whole(self) -> tuple[NDArray, NDArray]:
        """Spectrum (L,) of the whitened profile over all sites, and the power R (L,) beside it."""
        gram = self.gram.sum(axis=0)
        spectrum = dct(self.scores.sum(axis=0) / np.sqrt(gram), axis=0)
        return spectrum[:, 0], np.maximum(smoothed(np.square(spectrum[:, 1:]).mean(axis=1)), TINY)

    def by_channel(self) -> tuple[NDArray, NDArray, NDArray]:
        """Spectra (3, 1 + BESIDE, L) of what channels show; the root of each one's part of the information (3,); and where it is (3, L)."""
        from scipy.ndimage import uniform_filter1d  # slow to import

        information = self.gram[..., 0]
        around = uniform_filter1d(information, PERIOD, axis=1, mode="reflect")
        spectra = dct((self.scores / np.sqrt(around)[..., None]).swapaxes(1, 2))
        return spectra, np.sqrt(information.sum(axis=1) / information.sum()), information / around

    def without(self, offsets: NDArray) -> "Profiles":
        """What is left where y - D shows these offsets (L,), signal units; on the axis only."""
        scores = self.scores.copy()
        scores[..., 0] -= self.gram[..., 0] * offsets
        return replace(self, scores=scores)

    def by_loudness(self) -> Estimates | None:
        """Whitened offsets (L,) by frequency as the noise of lines tells them, but for the first, and the variance of their error."""
        if self.loud is None:
            return None
        spectra = dct(self.loud.T * self.root)
        return spectra[0], smoothed(np.square(spectra[1:]).mean(axis=0), LOUD_SMOOTH)


def waves(length: int, like: Tensor) -> Tensor:
    """(length, 1 + BESIDE): no wave, then the slowest ones, of mean square 1."""
    place = (torch.arange(length, device=like.device, dtype=torch.float64) + 0.5) / length
    waves = 2**0.5 * torch.cos(torch.pi * place[:, None] * torch.arange(1 + BESIDE, device=like.device))
    waves[:, 0] = 1
    return waves.to(like)


def profiles_of(measurement: Measurement, mean: Tensor, gains: Tensor) -> tuple[Profiles, Profiles]:
    """Those of rows, then of columns, for `mean`, the posterior mean given `measurement`."""
    height, width = mean.shape[-2:]
    along, down = waves(width, mean), waves(height, mean)
    of_rows, of_columns = [], [torch.zeros(3, width, 1 + BESIDE, dtype=torch.float64, device=mean.device) for _ in range(2)]
    for rows in strips(height):
        part = measurement.part(rows)
        gain = at_rows(gains, rows)
        weight = part.mask * gain / part.s.square()
        score, gram = (weight * (part.y - mean[..., rows, :]))[0], (weight * gain)[0]
        of_rows.append((score @ along, gram @ along.square()))
        of_columns[0] += score.mT @ down[rows]
        of_columns[1] += gram.mT @ down[rows].square()
    pairs = ([torch.cat(part, dim=1) for part in zip(*of_rows, strict=True)], of_columns)
    rows_, columns = (Profiles(*(part.double().cpu().numpy() for part in pair)) for pair in pairs)
    return rows_, columns


def _middle(length: int, side: int) -> slice:
    """The middle of a frame, from the beginning of a colour filter's period."""
    first = (length - side) // 2 // PERIODS * PERIODS
    return slice(first, first + side)


def _tried(side: int, generator: torch.Generator) -> NDArray:
    """Offsets of mean square 1 that hold every frequency, with random signs."""
    sign = 2 * torch.randint(2, (side,), generator=generator).numpy() - 1
    spectrum = sign / np.maximum(np.arange(side), 1.0) ** TILT
    return idct(spectrum) * np.sqrt(side / np.square(spectrum).sum())


def response(
    measurement: Measurement, again: Callable[[Measurement], Tensor], gains: Tensor, offsets: tuple[Tensor, Tensor] | None = None,
    before: Response | None = None,
) -> Response:  # fmt: skip
    """The fraction of an offset that y - D shows, on a square part of the frame.

    Rows and columns are tried at once, by offsets that the sums along lines tell apart, and averaged: D knows no direction.

    Args:
        again: the posterior mean of a part of the measurement; asked twice.
        offsets: of rows and columns of the frame; None: random ones.
        before: what other offsets told; of these only the channels' response is learned then.
    """
    side = min(PART, *measurement.y.shape[-2:]) // PERIODS * PERIODS
    rows, columns = (_middle(length, side) for length in measurement.y.shape[-2:])
    gains = gains if gains.shape[-2] == 1 else gains[..., rows, columns]
    part = Measurement(*(field[..., rows, columns] for field in (measurement.y, measurement.mask, measurement.s)))
    if offsets is None:
        size, generator = TRIED * float((part.s / gains).median()), torch.Generator().manual_seed(0)
        tried = [torch.from_numpy(size * _tried(side, generator)).to(part.y) for _ in range(2)]
    else:
        tried = [offsets[0][rows], offsets[1][columns]]
    added = part.mask * gains * (tried[0].reshape(-1, 1) + tried[1])
    left = added - (again(replace(part, y=part.y + added)) - again(part))
    shown = profiles_of(replace(part, y=left), torch.zeros_like(left), gains)
    frequency = np.arange(side) / side
    pairs = [(dct(one.double().cpu().numpy() * sums.root), sums) for one, sums in zip(tried, shown, strict=True) if sums.complete]
    product, square = _of_channels(pairs, frequency)
    if before is not None:
        return replace(before, product=before.product + product, square=before.square + square)
    f0, a = _fitted(*(np.concatenate(part) for part in zip(*((known, sums.whole()[0], frequency) for known, sums in pairs), strict=True)))
    return Response(f0, a, product, square)


def _fitted(known: NDArray, shown: NDArray, frequency: NDArray) -> tuple[float, float]:
    """f0 and a of `Response` by least squares of shown = K known; no offset, frequency 0, tells nothing."""
    from scipy.optimize import least_squares  # slow to import

    known = np.where(frequency > 0, known, 0)
    shown = np.where(frequency > 0, shown, 0)

    def rest(x: NDArray) -> NDArray:
        return known / (1 + (np.exp(x[0]) / np.maximum(frequency, TINY)) ** x[1]) - shown

    fit = least_squares(rest, (np.log(0.3), 1.0), bounds=LIMITS)
    return float(np.exp(fit.x[0])), float(fit.x[1])


def _of_channels(pairs: list[tuple[NDArray, Profiles]], frequency: NDArray) -> tuple[NDArray, NDArray]:
    """Sums of least squares within BINS, see `Response`."""
    within = np.searchsorted(BINS, frequency, "right") - 1
    product, square = np.zeros((3, len(BINS) - 1)), np.zeros(len(BINS) - 1)
    for known, one in pairs:
        spectra, part, _ = one.by_channel()
        for number in range(len(BINS) - 1):
            here = within == number
            product[:, number] += spectra[:, 0, here] @ known[here] / part
            square[number] += known[here] @ known[here]
    return product, square


def estimates(profiles: Profiles, response: Response) -> Estimates:
    """Whitened offsets (L,) by frequency as the sums over all sites of a line tell them, and the variance of their error."""
    spectrum, left = profiles.whole()
    fraction = response(np.arange(len(spectrum)) / len(spectrum))
    return spectrum / fraction, left / fraction**2


def estimates_by_colour(profiles: Profiles, response: Response, fast: NDArray, doubt: float) -> tuple[Estimates, Estimates]:
    """The same of the slow offsets, by all channels: of frequencies 1 to L // SLOW.

    Twice: as K is, which tells best whether there are any, and as K may be misjudged by, which tells best how large they are.

    Args:
        fast: whitened offsets of higher frequencies (L,), which would be seen as slow ones, because not all lines have all channels.
        doubt: the variance of what `fast` errs.
    """
    length = len(fast)
    frequency = np.arange(length) / length
    shown = response(frequency)
    spectra, part, where = profiles.without(idct(shown * fast) / profiles.root).by_channel()
    slow = slice(1, length // SLOW)
    folded = doubt * float(np.mean(np.square(shown[slow.stop :]))) * np.outer(part, part) * np.cov(where, bias=True)
    known = part * response.of_channels(frequency[slow]).T  # (n, 3)
    beside = spectra[:, 1:]
    own = np.einsum("cwf,cwf->cf", beside, beside).mean(axis=0)[slow] / BESIDE
    least = (LEAST_NOISE * smoothed(own) + TINY) * np.eye(3)[..., None] + folded[..., None]
    left = smoothed(np.einsum("cwf,dwf->cdf", beside, beside) / BESIDE)[..., slow] + least
    loud = profiles.by_loudness()
    if loud is not None:
        spectra = np.concatenate([spectra[:, 0], loud[0][None]])[:, None]
        known = np.pad(known, [(0, 0), (0, 1)], constant_values=1.0)
        left = np.pad(left, [(0, 1), (0, 1), (0, 0)])  # it has nothing to do with what the colours show
        left[3, 3] = loud[1][slow]
    left = np.moveaxis(left, -1, 0)
    here = spectra[:, 0, slow].T
    first = _combined(here, left, left, known)
    if loud is None:
        return first, first
    misjudged = MISJUDGED * np.sqrt(smoothed(np.square(first[0]), 1))[:, None] * known * (np.arange(4) < 3)
    return first, _combined(here, left + misjudged[:, :, None] * misjudged[:, None, :], left, known)


def _combined(shown: NDArray, covariance: NDArray, noise: NDArray, known: NDArray) -> tuple[NDArray, NDArray]:
    """What channels that show `known` (n, c) of an offset tell of it, by generalised least squares with a covariance (n, c, c); the
    variance of its error by `noise`, another."""
    weight = np.linalg.solve(covariance, known[..., None])[..., 0]
    weight /= np.maximum((weight * known).sum(axis=1), TINY)[:, None]
    return (weight * shown).sum(axis=1), np.einsum("nc,ncd,nd->n", weight, noise, weight)
