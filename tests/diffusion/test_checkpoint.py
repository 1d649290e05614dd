"""A training state survives the way to a file and back, and what does not fit changes nothing."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from lowlight_kedro.diffusion import checkpoint, prior
from lowlight_kedro.diffusion.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointMismatchError,
    NonFiniteStateError,
    digest,
    identity,
    names_of,
    pack,
    unpack,
)
from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.prior import (
    begin_with,
    build_prior,
    is_new_best,
    network_choice,
    prior_of,
    snapshot_name,
    snapshot_of,
    weights_of,
)
from lowlight_kedro.diffusion.training import State
from lowlight_kedro.diffusion.validation import better

RUN = {
    "format": FORMAT, "network": {"name": "raw_unet", "options": {"widths": [8, 8], "blocks": 1}}, "batch_size": 8, "data": "abc",
    "seed": 0, "crop": 32, "corruption": {"name": "uniform", "options": {}}, "scaling": {"mean": -0.7, "scale": 0.8}, "sigma_data": 0.5,
}  # fmt: skip
IDENTITY = RUN | {"averages": ["halflife"]}
NETWORK = NETWORKS["raw_unet"](widths=[8, 8], blocks=1)


def fresh(network=None, seed=0):
    network = deepcopy(network or NETWORK)
    for number, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1000 * seed + number))
    return State.fresh(Denoiser(network, 0.5))


def update(state):
    """Another update with gradients that differ between parameters."""
    for number, parameter in enumerate(state.denoiser.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(state.images + number))
    state.optimizer.step()
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.denoiser.parameters()), 0.3)
    state.images += 8
    state.losses.append(0.1 * state.images)
    return state


@pytest.fixture(scope="module")
def trained():
    state = update(update(fresh(seed=1)))
    state.history.append({"kimg": 0.016, "loss": 1.2, "psnr_0.3": 20.0})
    return state


@pytest.fixture
def packed(trained):
    return deepcopy(pack(trained, RUN))


def same(a, b):
    one, two = pack(a, {}), pack(b, {})
    tensors = one.tensors.keys() == two.tensors.keys() and all(torch.equal(t, two.tensors[n]) for n, t in one.tensors.items())
    return tensors and one.description == two.description


def test_a_state_comes_back_whole_and_goes_on_the_same(trained, packed):
    back = fresh(seed=5)
    unpack(packed, back, RUN)
    assert same(back, trained)
    assert same(update(back), update(deepcopy(trained)))
    assert packed.tensors["weights.last.weight"].equal(trained.denoiser.network.last.weight)  # training on left the file's values alone
    moments = {name: t.clone() for name, t in packed.tensors.items() if name.startswith("adam.")}
    assert all(torch.equal(pack(trained, RUN).tensors[name], value) for name, value in moments.items())


def test_moments_belong_to_names_whatever_the_order_in_the_optimiser(trained, packed):
    other = fresh(seed=5)
    other.optimizer = torch.optim.Adam(list(reversed(list(other.denoiser.parameters()))), fused=True)
    unpack(packed, other, RUN)
    for (name, a), b in zip(trained.denoiser.named_parameters(), other.denoiser.parameters(), strict=True):
        assert torch.equal(trained.optimizer.state[a]["exp_avg"], other.optimizer.state[b]["exp_avg"]), name
    assert same(update(other), update(deepcopy(trained)))


def numbered(packed, network=NETWORK):
    """The same as files had it before: moments by the parameter's number, nothing said of idle ones."""
    numbers = {name: str(number) for number, name in enumerate(names_of(network).values())}
    tensors = {}
    for name, tensor in packed.tensors.items():
        owner, _, key = name.removeprefix("adam.").rpartition(".")
        tensors[f"adam.{numbers[owner]}.{key}" if name.startswith("adam.") else name] = tensor
    return replace(packed, tensors=tensors, description={k: v for k, v in packed.description.items() if k not in ("idle", "emas")})


def test_files_that_number_the_moments_are_read_too(trained, packed):
    back = fresh(seed=5)
    unpack(numbered(packed), back, RUN)
    assert same(back, trained)


def test_a_parameter_that_no_gradient_reached_has_no_moments_and_the_state_comes_back():
    class WithIdle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    state = fresh(WithIdle(), seed=1)
    for parameter in state.denoiser.network.used.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    state.images = 8
    packed = deepcopy(pack(state, RUN))
    assert packed.description["idle"] == ["spare.weight", "spare.bias"]
    back = fresh(WithIdle(), seed=5)
    unpack(packed, back, RUN)
    assert same(back, state)


def test_a_state_before_the_first_update_has_no_moments():
    start, back = fresh(seed=1), fresh(seed=5)
    unpack(deepcopy(pack(start, RUN)), back, RUN)
    assert same(back, start)


def told(packed, **changes):
    return replace(packed, description=packed.description | changes)


def changed(packed, name, value):
    """Another tensor (None: none) at the first name that begins so."""
    full = next((known for known in sorted(packed.tensors) if known.startswith(name)), name)
    tensors = {key: tensor for key, tensor in packed.tensors.items() if key != full}
    return replace(packed, tensors=tensors if value is None else tensors | {full: value(packed.tensors.get(full))})


LIES = {
    "another network": (lambda c: told(c, network={"name": "ddpmpp", "options": {}}), "network: checkpoint {'name': 'ddpmpp'"),
    "other data": (lambda c: told(c, data="xyz"), "data: checkpoint 'xyz', now 'abc'"),
    "another seed": (lambda c: told(c, seed=1), "seed: checkpoint 1, now 0"),
    "another batch": (lambda c: told(c, batch_size=4), "batch_size: checkpoint 4, now 8"),
    "another crop": (lambda c: told(c, crop=None), "crop: checkpoint None, now 32"),
    "another corruption": (lambda c: told(c, corruption={"name": "noise_map"}), "corruption: checkpoint {'name': 'noise_map'}"),
    "another format": (lambda c: told(c, format=FORMAT + 1), "format: checkpoint 2, now 1; set training.resume=false"),
    "images no number": (lambda c: told(c, images="many"), "images: got 'many', expected a multiple of the batch size"),
    "images no batches": (lambda c: told(c, images=15), "images: got 15, expected a multiple of the batch size"),
    "images below 0": (lambda c: told(c, images=-8), "images: got -8"),
    "images a truth": (lambda c: told(c, images=False), "images: got False"),
    "history no list": (lambda c: told(c, history={"a": 1}), "history: got \"{'a': 1}\", expected a list of rows"),
    "norms no list": (lambda c: told(c, gradient_norms=7), "gradient_norms: got '7', expected a list of finite numbers"),
    "losses no numbers": (lambda c: told(c, losses=[float("nan")]), "losses: got '[nan]', expected a list of finite numbers"),
    "idle no list": (lambda c: told(c, idle=5), "idle: got '5', expected a list of names"),
    "idle that is not": (lambda c: told(c, idle=["last.bias"]), "adam.last.bias.exp_avg: checkpoint has float32"),
    "no moments": (lambda c: told(c, images=0), "network lacks it"),
    "a weight missing": (lambda c: changed(c, "weights.", None), "checkpoint lacks it, network has float32"),
    "a weight more": (lambda c: changed(c, "weights.x", lambda _: torch.zeros(1)), "weights.x: checkpoint has float32 (1,), network lacks"),
    "a shape": (lambda c: changed(c, "ema.", lambda t: t[..., None]), "network has float32"),
    "a type": (lambda c: changed(c, "ema.", lambda t: t.half()), "checkpoint has float16"),
    "NaN": (lambda c: changed(c, "weights.", lambda t: t * torch.nan), "holds NaN or infinity in weights."),
    "infinity in Adam": (lambda c: changed(c, "adam.", lambda t: t + torch.inf), "holds NaN or infinity in adam."),
    "a moment missing": (lambda c: changed(c, "adam.", None), "checkpoint lacks it"),
    "a moment's shape": (lambda c: changed(c, "adam.", lambda t: t[:1]), "network has float32"),
    "a number too high": (lambda c: changed(numbered(c), "adam.999.step", lambda _: torch.zeros(())), "adam.999.step: checkpoint has"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_what_does_not_fit_is_refused_by_name_with_a_fix_and_changes_nothing(packed, lie):
    make, words = LIES[lie]
    back = fresh(seed=5)
    untouched = deepcopy(back)
    with pytest.raises(CheckpointMismatchError) as raised:
        unpack(replace(make(packed), source="models/state.safetensors"), back, RUN)
    message = str(raised.value)
    assert words in message, message
    assert "models/state.safetensors" in message
    assert "training.resume=false" in message
    assert same(back, untouched)


def test_moments_swapped_between_parameters_of_other_shapes_are_refused(packed):
    """By number alone the first two would change places unseen if only their count was looked at."""
    old = numbered(packed)
    numbers = {"0": "1", "1": "0"}
    tensors = {
        f"adam.{numbers.get(name.split('.')[1], name.split('.')[1])}.{name.split('.')[2]}" if name.startswith("adam.") else name: t
        for name, t in old.tensors.items()
    }
    with pytest.raises(CheckpointMismatchError, match=r"adam\..*exp_avg: checkpoint has float32 .*, network has float32"):
        unpack(replace(old, tensors=tensors), fresh(), RUN)


@pytest.mark.parametrize("where", ["weights", "ema", "adam"])
@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_a_spoilt_state_is_not_packed(trained, where, value):
    state = deepcopy(trained)
    parameter = next(state.denoiser.parameters())
    spoilt = {"weights": parameter, "ema": next(state.ema.parameters()), "adam": state.optimizer.state[parameter]["exp_avg"]}[where]
    with torch.no_grad():
        spoilt.view(-1)[3] = value
    with pytest.raises(NonFiniteStateError, match=rf"NaN or infinity in {where}\..* after 16 images.*saved before it is unchanged"):
        pack(state, RUN)


def test_a_prior_is_the_running_mean_and_knows_the_run(trained, packed):
    prior = prior_of(packed)
    assert prior.tensors.keys() == NETWORK.state_dict().keys()
    assert prior.description == IDENTITY | {"images": 16}
    built = build_prior(prior, deepcopy(NETWORK))
    for name, weights in built.denoiser.network.state_dict().items():
        assert torch.equal(weights, trained.ema.network.state_dict()[name])
    assert digest(prior) == digest(replace(prior, source="elsewhere"))
    assert identity(prior.description) == identity(packed.description) == IDENTITY


def test_states_and_priors_are_shown_in_a_line(packed):
    assert repr(packed).startswith("Checkpoint(") and len(repr(packed)) < 120  # noqa: PT018
    assert len(repr(build_prior(prior_of(packed), fresh().denoiser.network))) < 200


def test_a_prior_may_be_stored_in_16_bits(packed):
    prior = prior_of(packed)
    half = replace(prior, tensors={name: tensor.half() for name, tensor in prior.tensors.items()})
    for name, weights in build_prior(half, deepcopy(NETWORK)).denoiser.network.state_dict().items():
        assert weights.dtype == torch.float32
        assert torch.equal(weights, prior.tensors[name].half().float())


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: changed(p, "last.weight", lambda t: t * torch.nan), "file holds NaN or infinity in last.weight"),
    (lambda p: changed(p, "last.weight", None), r"last\.weight: checkpoint lacks it, network has float32"),
    (lambda p: told(p, format=9), "got format 9, expected 1"),
    (lambda p: told(p, scaling={"mean": 0.0}), "does not describe a prior .*'scale'"),
    (lambda p: told(p, sigma_data=None), "does not describe a prior"),
    (lambda p: told(p, corruption={}), "does not describe a prior .*'name'"),
    (lambda p: told(p, history=[]), r"is a training state, expected a prior; take prior\.safetensors or a snapshot"),
])  # fmt: skip
def test_a_prior_that_does_not_fit_is_refused(packed, make, words):
    network = deepcopy(NETWORK)
    before = deepcopy(network.state_dict())
    prior = replace(make(prior_of(packed)), source="the file")
    with pytest.raises(CheckpointMismatchError, match=words):
        build_prior(prior, network)
    if "describe" not in words and "format" not in words:
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_description_without_network_is_refused_by_name(packed):
    assert network_choice(prior_of(packed)) == ("raw_unet", {"widths": [8, 8], "blocks": 1})
    with pytest.raises(CheckpointMismatchError, match=r"the checkpoint does not describe a prior \(TypeError"):
        network_choice(told(prior_of(packed), network="raw_unet"))


@pytest.fixture
def two_means(monkeypatch):
    """A state with a second running mean, `power0.1`, minus the first."""

    def means(state):
        second = deepcopy(state.ema)
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.neg_()
        state.second = getattr(state, "second", second)
        return {"ema": state.ema, "power0.1": state.second}

    for module in (checkpoint, prior):
        monkeypatch.setattr(module, "running_means", means)


def test_several_running_means_are_stored_under_their_names(two_means, trained):
    state, back = deepcopy(trained), fresh(seed=5)
    packed = deepcopy(pack(state, RUN))
    unpack(packed, back, RUN)
    assert torch.equal(back.second.network.last.weight, -state.ema.network.last.weight)
    assert prior_of(packed).tensors.keys() == NETWORK.state_dict().keys()
    snapshot = snapshot_of(packed, "loss")
    assert snapshot.description["emas"] == ["power0.1"]
    for mean, sign in (("ema", 1), ("power0.1", -1)):
        assert weights_of(snapshot, mean).keys() == NETWORK.state_dict().keys()
        assert torch.equal(weights_of(snapshot, mean)["last.weight"], sign * state.ema.network.last.weight)
    build_prior(snapshot, deepcopy(NETWORK))
    begun = fresh(seed=6)
    begin_with(begun, snapshot)
    assert torch.equal(begun.second.network.last.weight, state.ema.network.last.weight)
    with pytest.raises(CheckpointMismatchError, match=r"has no running mean 'ema7'; it has ema, power0\.1"):
        weights_of(snapshot, "ema7")


def test_a_snapshot_is_a_prior_with_its_figures(packed):
    snapshot = snapshot_of(packed, "psnr_0.3")
    assert snapshot.description["figures"] == {"kimg": 0.016, "loss": 1.2, "psnr_0.3": 20.0}
    assert "emas" not in snapshot.description
    assert {name: tuple(t.shape) for name, t in snapshot.tensors.items()} == {n: tuple(t.shape) for n, t in NETWORK.state_dict().items()}
    build_prior(snapshot, deepcopy(NETWORK))
    assert snapshot_of(told(packed, images=24), "psnr_0.3").description["figures"] == {}
    names = [snapshot_name(images) for images in (96, 1_000, 50_000, 50_016, 200_000, 1_000_000)]
    assert names == sorted(names)
    assert names[2] == "prior-000050.000kimg"


def judged(images, run="a", best_by="psnr_0.3", **figures):
    return Checkpoint({}, {"data": run, "images": images, "figures": figures, "best_by": best_by})


def test_the_best_is_the_best_of_one_run_and_nan_never_is():
    assert better(2.0, 1.0, "psnr_0.3")
    assert better(1.0, 2.0, "loss")
    assert not better(1.0, 1.0, "loss")
    assert not better(1.0, 1.0, "ssim_1")
    assert not better(1.0, 2.0, "ssim_1")
    best = judged(32, **{"psnr_0.3": 20.0})
    assert is_new_best(best, None)
    assert is_new_best(judged(64, **{"psnr_0.3": 20.1}), best)
    for worse in (judged(64, **{"psnr_0.3": 19.9}), judged(64, **{"psnr_0.3": float("nan")}), judged(64, loss=0.1)):
        assert not is_new_best(worse, best)
        assert is_new_best(best, replace(worse, description=worse.description | {"images": 16}))
    assert not is_new_best(judged(64), None)
    assert is_new_best(judged(64, run="b", **{"psnr_0.3": 1.0}), best)  # another run
    assert is_new_best(judged(16, **{"psnr_0.3": 1.0}), best)  # begun anew
    assert is_new_best(judged(32, **{"psnr_0.3": 20.0}), best)  # killed after the snapshot, come there again
