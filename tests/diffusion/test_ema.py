import numpy as np
import pytest
import torch
from torch import nn

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, pack, unpack
from lowlight_kedro.diffusion.ema import EMAS, WIDEST, follow, gamma_of, halflife, inner_products, power, reconstruction
from lowlight_kedro.diffusion.prior import begin_with, prior_of, reconstruct_prior, snapshot_of, weights_of
from tests.diffusion.test_training import fresh, run, same, states

OPTIONS = {"halflife": {"kimg": 0.1, "rampup": 0.2}, "power": {"sigma_rel": [0.1, 0.2]}}


def averaged(keep, values, batch=8):
    """The running mean after each update, by its own recursion."""
    mean, means = values[0], []
    for t, value in enumerate(values, 1):
        fraction = keep(batch * t, batch)
        mean = fraction * mean + (1 - fraction) * value
        means.append(mean)
    return np.array(means)


def fractions(keep, updates, batch=8):
    """How much the weights after each update count at the end."""
    kept = np.array([keep(batch * t, batch) for t in range(1, updates + 1)])
    return (1 - kept) * np.append(np.cumprod(kept[:0:-1])[::-1], 1)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.05, 0.1, 0.25, WIDEST])
def test_a_power_mean_has_the_width_it_is_named_by(sigma_rel):
    (keep,) = power(sigma_rel=[sigma_rel]).values()
    weight, time = fractions(keep, 4000), np.arange(1, 4001) / 4000
    centre = (weight * time).sum()
    assert weight.sum() == pytest.approx(1)
    assert np.sqrt((weight * (time - centre) ** 2).sum()) == pytest.approx(sigma_rel, rel=2e-3)
    gamma = gamma_of(sigma_rel)
    np.testing.assert_allclose(weight[999::1000] * 4000, (gamma + 1) * time[999::1000] ** gamma, rtol=0.02, atol=1e-3)


def test_the_widest_power_mean_is_the_plain_mean_of_all_weights():
    (keep,) = power(sigma_rel=[WIDEST]).values()
    np.testing.assert_allclose(fractions(keep, 50), 1 / 50, rtol=1e-6)


def test_a_half_life_is_one():
    keep = halflife(kimg=0.08, rampup=1e9)["halflife"]
    weight = fractions(keep, 400)
    assert weight[-10:].sum() == pytest.approx(0.5)  # the last 10 updates of 8 images
    early = halflife(kimg=1e9, rampup=0.1)["halflife"]
    assert early(100, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(("widths", "message"), [([0.3], r"sigma_rel must be in \(0, 0.2887\], got sigma_rel=0.3"), ([0], "sigma_rel=0"),
                                                 ([], "at least one"), ([0.1, 0.1], "different widths")])  # fmt: skip
def test_widths_that_no_mean_has_are_refused(widths, message):
    with pytest.raises(ValueError, match=message):
        power(sigma_rel=widths)


def test_inner_products_are_the_integrals():
    time = (np.arange(200_000) + 0.5) / 200_000

    def profile(end, gamma):
        return np.where(time <= end, (gamma + 1) * (time / end) ** gamma / end, 0)

    for t_a, gamma_a, t_b, gamma_b in [(1, 6.0, 0.5, 16.0), (0.3, 2.0, 0.9, 0.5), (0.7, 3.0, 0.7, 3.0)]:
        wanted = (profile(t_a, gamma_a) * profile(t_b, gamma_b)).mean()
        assert inner_products(*map(np.float64, (t_a, gamma_a, t_b, gamma_b))) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("sigma_rel", [0.06, 0.075, 0.15])
def test_a_width_that_was_never_tracked_comes_from_stored_means_of_two(sigma_rel):
    """A path that drifts and shakes; 24 snapshots. The answer is the mean that a run tracking this width would have had."""
    rng, updates = np.random.default_rng(0), 4800
    path = np.linspace(0, 3, updates) ** 0.5 + np.cumsum(rng.normal(size=updates)) * 0.01 + rng.normal(size=updates)
    stored = np.arange(updates // 24, updates + 1, updates // 24)
    means = {width: averaged(keep, path) for width, keep in zip((0.05, 0.1), power(sigma_rel=[0.05, 0.1]).values(), strict=True)}
    (keep,) = power(sigma_rel=[sigma_rel]).values()
    wanted = averaged(keep, path)[-1]
    weight = reconstruction([*stored, *stored], [0.05] * 24 + [0.1] * 24, updates, sigma_rel)
    assert weight.sum() == pytest.approx(1)
    made = weight @ np.concatenate([means[0.05][stored - 1], means[0.1][stored - 1]])
    nearest = min(abs(means[width][-1] - wanted) for width in means)
    assert abs(made - wanted) < 0.05 * nearest, (made, wanted, nearest)


def test_a_tracked_width_is_reconstructed_as_itself_and_the_unit_of_time_does_not_matter():
    times, widths = [1, 2, 3, 1, 2, 3], [0.05] * 3 + [0.1] * 3
    np.testing.assert_allclose(reconstruction(times, widths, 3, 0.1), [0, 0, 0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(
        reconstruction([1e6 * t for t in times], widths, 3e6, 0.07), reconstruction(times, widths, 3, 0.07), rtol=1e-6, atol=1e-9
    )


def test_means_follow_in_place_and_leave_the_weights():
    torch.manual_seed(0)
    module, mean = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    before, weights = mean.weight.clone(), module.weight.detach().clone()
    follow({"a": mean}, module, {"a": 0.75})
    torch.testing.assert_close(mean.weight, 0.75 * before + 0.25 * weights)
    assert torch.equal(module.weight, weights)


@pytest.mark.parametrize("name", EMAS)
def test_a_run_with_any_kind_of_mean_resumes_bit_for_bit(name):
    averages = EMAS[name](**OPTIONS[name])
    whole = run(fresh(averages=averages), averages=averages)
    stopped = pack(run(fresh(averages=averages), averages=averages, stop_after=4), {})
    resumed = fresh(seed=9, averages=averages)
    unpack(stopped, resumed, {})
    assert same(run(resumed, averages=averages), whole)
    for average in whole.averages.values():
        assert not torch.equal(average.network.last.weight, whole.denoiser.network.last.weight)


def test_a_state_with_other_means_is_refused():
    with pytest.raises(CheckpointMismatchError, match=r"averages: checkpoint \['halflife'\], now \['power_0.1', 'power_0.2'\]"):
        unpack(pack(fresh(), {}), fresh(averages=power(sigma_rel=[0.1, 0.2])), {})


def test_all_means_begin_with_a_prior():
    begun = fresh(averages=power(sigma_rel=[0.1, 0.2]))
    begin_with(begun, prior_of(pack(run(fresh(seed=3), stop_after=2), {})))
    first, second = (average.network.last.weight for average in begun.averages.values())
    assert torch.equal(first, second)
    assert torch.equal(first, begun.denoiser.network.last.weight)


@pytest.fixture(scope="module")
def snapshots():
    """All snapshots of a run of 40 updates with two widths."""
    averages = power(sigma_rel=[0.06, 0.2])
    saved = []
    for state in states(fresh(averages=averages), averages=averages, total_kimg=0.32, snapshot_ticks=1):
        checkpoint = pack(state, {"seed": 1})
        saved.append(Checkpoint({name: tensor.clone() for name, tensor in checkpoint.tensors.items()}, checkpoint.description))
    return saved


def test_a_prior_of_a_width_made_afterwards_is_the_one_that_training_would_have_kept(snapshots):
    averages = power(sigma_rel=[0.12])
    twin = run(fresh(averages=averages), averages=averages, total_kimg=0.32, snapshot_ticks=1)
    made = reconstruct_prior(snapshots[::-1], 0.12)
    wanted, near = twin.ema.network.last.weight, prior_of(snapshots[-1]).tensors["last.weight"]
    error = (made.tensors["last.weight"] - wanted).norm() / (near - wanted).norm()
    assert error < 0.05, error
    assert made.tensors["last.weight"].dtype == torch.float32
    assert made.tensors.keys() == prior_of(snapshots[-1]).tensors.keys()
    assert made.description["averages"] == ["power_0.12"]
    assert "history" not in made.description


@pytest.mark.parametrize(("sigma_rel", "prefix"), [(0.06, "ema."), (0.2, "power_0.2.")])
def test_a_width_that_was_tracked_is_the_stored_mean(snapshots, sigma_rel, prefix):
    made = reconstruct_prior(snapshots, sigma_rel).tensors["last.weight"]
    torch.testing.assert_close(made, snapshots[-1].tensors[f"{prefix}last.weight"], rtol=1e-5, atol=1e-9)


def test_priors_that_were_kept_as_snapshots_make_the_same_prior_as_whole_states(snapshots):
    kept = [snapshot_of(state, "loss") for state in snapshots]
    one, other = (reconstruct_prior(stored, 0.12) for stored in (snapshots, kept))
    assert list(one.tensors) == list(other.tensors) != []
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert one.description == other.description
    assert weights_of(one).keys() == prior_of(snapshots[-1]).tensors.keys()


def test_snapshots_of_different_runs_or_without_power_means_make_no_prior(snapshots):
    other = Checkpoint(snapshots[0].tensors, snapshots[0].description | {"seed": 2})
    with pytest.raises(CheckpointMismatchError, match="of different runs: they differ in seed"):
        reconstruct_prior([other, snapshots[1]], 0.1)
    with pytest.raises(CheckpointMismatchError, match=r"train with training\.ema\.name=power"):
        reconstruct_prior([pack(run(fresh(), stop_after=1), {})], 0.1)
