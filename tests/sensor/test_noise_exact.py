"""The densities: against quadrature, against sums written out, against samples, against each other."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gammaln, xlogy
from scipy.stats import chi2, norm, tukeylambda

from lowlight_kedro.sensor.noise import CameraNoise, PoissonGaussian
from lowlight_kedro.sensor.noise.tukey import standard_deviation

RANGE = 16383 - 512  # DN
ELECTRONS = (0.0, 0.3, 3.0, 30.0)
ISO_1600, ISO_25600 = (1.5301 / RANGE, 6.299 / RANGE), (24.481 / RANGE, 25.853 / RANGE)  # Sony A7S II: 4.1 and 1.06 e- of read noise
DENSITIES = {
    "exact": PoissonGaussian(*ISO_1600, exact=True),
    "exact, 1 e-": PoissonGaussian(*ISO_25600, exact=True),
    "camera": CameraNoise(*ISO_1600, tail=-0.044, row_noise=0.989 / RANGE, white=None),
    "camera, 1 e-": CameraNoise(*ISO_25600, tail=-0.091, row_noise=2.276 / RANGE, step=5 / RANGE, white=None),
    "camera, long tails": CameraNoise(*ISO_1600, tail=-0.27, white=None),
    "camera, short tails": CameraNoise(*ISO_1600, tail=0.149, white=None),
}
every_density = pytest.mark.parametrize("model", DENSITIES.values(), ids=DENSITIES)
at_electrons = pytest.mark.parametrize("electrons", ELECTRONS)


def spread(model, signal, furthest=10.0, count=4001):
    """Observations about `signal`, dense near it, out to sinh(furthest) standard deviations."""
    return signal + np.sinh(np.linspace(-furthest, furthest, count)) * np.sqrt(model.variance(np.asarray(signal)))


@at_electrons
@every_density
def test_it_integrates_to_one_with_the_right_mean_and_variance(model, electrons):
    signal, std = electrons * model.gain, np.sqrt(model.variance(np.asarray(electrons * model.gain)))
    y = spread(model, signal)
    density = np.exp(model.log_likelihood(y, signal))
    assert np.trapezoid(density, y) == pytest.approx(1, abs=1e-5)
    assert np.trapezoid(density * (y - signal), y) == pytest.approx(0, abs=1e-4 * std)
    assert np.trapezoid(density * (y - signal) ** 2, y) == pytest.approx(std**2, rel=1e-3)


def poisson(electrons):
    k = np.arange(int(electrons + 12 * electrons**0.5 + 40))
    return k, np.exp(xlogy(k, electrons) - electrons - gammaln(k + 1))


@at_electrons
@pytest.mark.parametrize("numbers", [ISO_1600, ISO_25600])
def test_the_exact_likelihood_is_the_sum_over_counts(numbers, electrons):
    model, (k, weights) = PoissonGaussian(*numbers, exact=True), poisson(electrons)
    y = spread(model, electrons * model.gain, furthest=2.5, count=201)
    direct = norm.pdf(y[:, None], k * model.gain, model.read_noise) @ weights
    np.testing.assert_allclose(model.log_likelihood(y, electrons * model.gain), np.log(direct), rtol=1e-11, atol=1e-11)


@at_electrons
@pytest.mark.parametrize(("numbers", "tail"), [(ISO_1600, -0.044), (ISO_1600, -0.27), (ISO_25600, -0.091), (ISO_25600, 0.0)])
def test_the_camera_likelihood_is_the_sum_over_counts(numbers, tail, electrons):
    """Within 4 standard deviations; the bound is what dropping single-electron peaks costs at 1 e-, 1e-6 at 4 e-."""
    model, (k, weights) = CameraNoise(*numbers, tail=tail, white=None), poisson(electrons)
    y = spread(model, electrons * model.gain, furthest=2.09, count=201)
    scale = model.read_noise / standard_deviation(tail)
    with np.errstate(divide="ignore"):
        direct = np.log(tukeylambda.pdf((y[:, None] - k * model.gain) / scale, tail) @ weights) - np.log(scale)
    np.testing.assert_allclose(model.log_likelihood(y, electrons * model.gain), direct, atol=5e-3 if numbers == ISO_25600 else 2e-6)


@pytest.mark.parametrize("electrons", [*ELECTRONS, 3000.0])
@pytest.mark.parametrize("numbers", [ISO_1600, ISO_25600])
def test_two_ways_to_the_same_density(numbers, electrons):
    """Counting photons and the Fourier integral, where the camera has nothing but photons and Gaussian read noise."""
    counted, tabulated = PoissonGaussian(*numbers, exact=True), CameraNoise(*numbers, white=None)
    signal = electrons * counted.gain * min(1, 1.9 / (electrons * counted.gain + 1e-9))
    y = spread(counted, signal, furthest=2.09, count=201)
    np.testing.assert_allclose(tabulated.log_likelihood(y, signal), counted.log_likelihood(y, signal), atol=5e-4)


@at_electrons
@every_density
def test_one_more_electron_shifts_the_density(model, electrons):
    """d p / d lambda = p(y - gain) - p(y), for any read noise: from the Poisson distribution alone."""
    signal = electrons * model.gain
    std = np.sqrt(model.variance(np.asarray(signal)))
    y = signal + np.linspace(-2.5, 2.5, 51) * std
    told = np.expm1(model.log_likelihood(y - model.gain, signal) - model.log_likelihood(y, signal)) / model.gain
    np.testing.assert_allclose(model.score(y, signal) * std, told * std, atol=3e-3)


def test_many_electrons_look_gaussian():
    """The distance to the Gaussian form falls as 1 / sqrt(electrons): the skewness of the Poisson distribution."""
    exact, gaussian = PoissonGaussian(*ISO_25600, exact=True), PoissonGaussian(*ISO_25600)
    distance = []
    for electrons in (100.0, 10_000.0):
        signal = np.asarray(electrons * exact.gain)
        y = spread(exact, signal, furthest=1.8, count=101)
        distance.append(np.abs(exact.log_likelihood(y, signal) - gaussian.log_likelihood(y, signal)).max())
    assert distance[1] < 0.05
    assert distance[0] / distance[1] == pytest.approx(10, rel=0.2)


def fits(counts, probabilities):
    """Chi-square test at the level of 5 standard deviations; cells of fewer than 20 expected join the next."""
    expected = probabilities / probabilities.sum() * counts.sum()
    cells = np.unique(np.floor(np.cumsum(expected) / 20))
    edges = np.searchsorted(np.floor(np.cumsum(expected) / 20), cells)
    observed, expected = np.add.reduceat(counts, edges), np.add.reduceat(expected, edges)
    keep = expected > 5
    return chi2.sf(((observed - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1) > 6e-7


def binned(model, samples, signal, width):
    """Counts and probabilities (Simpson's rule) of samples in bins of `width` about multiples of it."""
    number = np.rint(samples / width).astype(int)
    grid = np.arange(number.min() - 1, number.max() + 2)
    inside = np.exp(model.log_likelihood((grid[:, None] + np.array([-0.5, 0, 0.5])) * width, signal)) @ [1, 4, 1] * width / 6
    return np.bincount(number - grid[0], minlength=len(grid)), inside


@at_electrons
def test_samples_fill_the_bins_as_the_exact_density_tells(electrons, rng):
    model = PoissonGaussian(*ISO_25600, exact=True)
    signal, width = electrons * model.gain, model.read_noise / 4
    sample = model.sample(np.full(100_000, signal), rng)
    assert fits(*binned(model, sample, signal, width))
    wrong = {"read_noise": model.read_noise * 1.1} if electrons < 10 else {"gain": model.gain * 1.1}
    assert not fits(*binned(replace(model, **wrong), sample, signal, width))


@at_electrons
def test_samples_fill_the_digital_numbers_as_the_camera_tells(electrons, rng):
    """Rounded and clipped at both ends: the probabilities of all DN are 1 together, and those of the samples."""
    step = 15 / RANGE
    model = CameraNoise(*ISO_25600, tail=-0.091, row_noise=10 / RANGE, black_error=5 / RANGE, step=step, white=30 * step, floor=-3 * step)
    signal = electrons * model.gain
    grid = np.arange(-3, 31)
    probabilities = np.exp(model.log_likelihood(grid * step, signal)) * step
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    sample = model.sample(np.full((100_000, 1, 1), signal), rng)
    counts = np.bincount(np.rint(sample.ravel() / step).astype(int) + 3, minlength=len(grid))
    assert fits(counts, probabilities)
    sloppy = np.exp(replace(model, row_noise=0.0).log_likelihood(grid * step, signal))
    assert electrons > 5 or not fits(counts, sloppy)
