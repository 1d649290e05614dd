"""A training state as named tensors and a description, and back; nothing is pickled.

What a training state holds (`pack`; one safetensors file, the description is the JSON `lowlight_kedro` of its header):

| tensors | |
|---|---|
| `weights.<name>` | the network's parameters and buffers, by their names in it |
| `ema.<name>` | the same of the running mean that inference uses |
| `<ema>.<name>` | the same of each further running mean in `running_means`, under its own name (`power_0.1`, ...) |
| `adam.<parameter>.{step,exp_avg,exp_avg_sq}` | the optimiser's moments by the parameter's name; files written before this rule \
have its number in the order of the network's parameters instead, and are read too |

| description | |
|---|---|
| format, network, corruption, scaling, P_mean, P_std, sigma_data, data, batch_size, crop, seed, initial_prior, averages | what identifies \
the run: a state with another value of any of them is refused |
| images | how many were trained on; all randomness follows from it and the seed, so no generator is stored |
| history, losses, gradient_norms | rows of the curves; figures of the updates since the last row |
| emas | names of the further running means |
| course | what the run may change on its way, as its length and learning rate, at its newest state |
| idle | trainable parameters without moments so far, because no gradient reached them |

A prior (`prior_of`, `snapshots.snapshot_of`) holds the running mean only, `<name>` without a prefix; of further means there are
`<ema>.<name>`, and `emas` in the description lists them (`weights_of`). A snapshot also has `figures`, its row of the history.

NaN and infinity are refused when saving, so that the last sound state stays, and when loading, because a file may be
changed by others. A file that does not fit changes nothing: all is checked before the first value is copied.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.moments import by_name, expected_moments, idle_parameters, load_moments, moments_of
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import State

FORMAT = 1
PROGRESS = (
    "images",
    "history",
    "losses",
    "gradient_norms",
    "idle",
    "figures",
    "best_by",
    "emas",
    "course",
)  # what may change while one run goes on


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON-able values. `source`: where it was read, for messages."""

    tensors: dict[str, Tensor]
    description: dict[str, Any]
    source: str = field(default="the checkpoint", compare=False)

    def __repr__(self) -> str:
        network = self.description.get("network", {}).get("name", "no network")
        millions = sum(tensor.numel() for tensor in self.tensors.values()) / 1e6
        return f"Checkpoint({network}, {len(self.tensors)} tensors, {millions:.2f} million values, {self.source})"


class CheckpointMismatchError(ValueError):
    """A checkpoint that does not fit what it is asked for."""


class NonFiniteStateError(ValueError):
    """A training state with NaN or infinity in it, which must not replace a sound one."""


def digest(checkpoint: Checkpoint) -> str:
    """The same for the same weights and description."""
    hashed = hashlib.sha256(json.dumps(checkpoint.description, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        hashed.update(name.encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a description that all checkpoints of one run share."""
    return {key: value for key, value in description.items() if key not in PROGRESS}


def running_means(state: State) -> dict[str, Denoiser]:
    """The running means of the weights by the name they are stored under; the first is `ema`, the one that inference uses."""
    first, *others = state.averages.items()
    return {"ema": first[1], **dict(others)}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _prefixed(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _some(items: Iterable[str]) -> str:
    """The first three of them, and how many more."""
    listed = list(items)
    return "; ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _kind(tensor: Tensor | None) -> str:
    return "lacks it" if tensor is None else f"has {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors with NaN or infinity; asks a device once where there are none."""
    checks = {name: tensor.isfinite().all() for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not checks:
        return []
    device = next(iter(checks.values())).device
    if torch.stack([check.to(device) for check in checks.values()]).all():
        return []
    return [name for name, check in checks.items() if not check]


def _require_fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str, fix: str) -> None:
    """Raise where names, shapes or types differ, or where a value is not finite."""
    wrong = [
        f"{name}: checkpoint {_kind(tensors.get(name))}, network {_kind(wanted.get(name))}"
        for name in sorted({*wanted, *tensors})
        if _kind(wanted.get(name)) != _kind(tensors.get(name))
    ]
    if wrong:
        raise CheckpointMismatchError(f"{source} does not fit the network: {_some(wrong)}; {fix}")
    spoilt = _non_finite(tensors)
    if spoilt:
        raise CheckpointMismatchError(f"{source} holds NaN or infinity in {_some(spoilt)}, expected finite numbers; {fix}")


FIX_STATE = "remove it or set training.resume=false to start afresh over it; start_from may name a snapshot to begin with"
FIX_PRIOR = "name a prior that was trained with these options of the network"


def _models(state: State) -> dict[str, Tensor]:
    """Weights and running means."""
    tensors = _prefixed("weights", state.denoiser.network.state_dict())
    for name, mean in running_means(state).items():
        tensors |= _prefixed(name, mean.network.state_dict())
    return tensors


def pack(state: State, description: Mapping[str, Any]) -> Checkpoint:
    """The whole state; the tensors are views of the live ones, so save before training goes on.

    Raises:
        NonFiniteStateError: a value is NaN or infinite, as after an infinite gradient of a finite loss.
    """
    tensors = _models(state) | _prefixed("adam", moments_of(state))
    spoilt = _non_finite(tensors)
    if spoilt:
        raise NonFiniteStateError(
            f"NaN or infinity in {_some(spoilt)} after {state.images} images, expected finite numbers: the last update was too large; "
            "the state saved before it is unchanged; lower training.learning_rate, set training.max_gradient, or use precision fp32"
        )
    progress = {"images": state.images, "history": state.history, "losses": state.losses, "gradient_norms": state.gradient_norms}
    names = {"idle": idle_parameters(state), "emas": list(running_means(state))[1:], "averages": list(state.averages)}
    return Checkpoint(tensors, dict(description) | progress | names)


def _require_same_run(checkpoint: Checkpoint, description: Mapping[str, Any]) -> None:
    stored = {"averages": ["halflife"]} | checkpoint.description  # the only kind before they had names
    differs = [f"{key}: checkpoint {stored.get(key)!r}, now {value!r}" for key, value in description.items() if stored.get(key) != value]
    if differs:
        raise CheckpointMismatchError(
            f"the training state on disk ({checkpoint.source}) is of another run: " + "; ".join(differs) + "; set training.resume=false to "
            "start afresh over it, or point the catalog entry training_state elsewhere"
        )


def _require_progress(checkpoint: Checkpoint) -> None:
    """The header may have been changed by others."""
    description = checkpoint.description
    images, history, idle = description.get("images"), description.get("history"), description.get("idle", [])
    wrong = []
    if type(images) is not int or images < 0 or images % description.get("batch_size", 1):
        wrong.append(f"images: got {images!r}, expected a multiple of the batch size, from 0 on")
    if not isinstance(idle, list):
        wrong.append(f"idle: got {str(idle)[:60]!r}, expected a list of names")
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        wrong.append(f"history: got {str(history)[:60]!r}, expected a list of rows")
    for name, figures in {"losses": description.get("losses"), "gradient_norms": description.get("gradient_norms", [])}.items():
        if not isinstance(figures, list) or not all(isinstance(figure, (int, float)) and math.isfinite(figure) for figure in figures):
            wrong.append(f"{name}: got {str(figures)[:60]!r}, expected a list of finite numbers")
    if wrong:
        raise CheckpointMismatchError(f"{checkpoint.source} is no training state: " + "; ".join(wrong) + f"; {FIX_STATE}")


def unpack(checkpoint: Checkpoint, state: State, description: Mapping[str, Any]) -> None:
    """Put a checkpoint into a fresh `state`, or leave the state as it is.

    Raises:
        CheckpointMismatchError: it was trained with another `description` (network, data, scaling, ...), its tensors do not fit
            the network and its optimiser, or it holds NaN.
    """
    _require_same_run(checkpoint, dict(description) | {"averages": list(state.averages)})
    _require_progress(checkpoint)
    description = checkpoint.description
    moments = by_name(_part(checkpoint.tensors, "adam."), state.denoiser.network)
    models = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("adam.")}
    wanted = expected_moments(state, description.get("idle", [])) if description["images"] else {}
    _require_fit(_models(state) | _prefixed("adam", wanted), models | _prefixed("adam", moments), checkpoint.source, FIX_STATE)
    for name, model in {"weights": state.denoiser, **running_means(state)}.items():
        model.network.load_state_dict(_part(models, f"{name}."))
    load_moments(state, moments)
    state.images, state.history, state.losses = description["images"], list(description["history"]), list(description["losses"])
    state.gradient_norms = list(description.get("gradient_norms", []))


def prior_of(checkpoint: Checkpoint) -> Checkpoint:
    """What inference needs of a training state: the EMA weights and the description without the history."""
    described = identity(checkpoint.description) | {"images": checkpoint.description["images"]}
    return Checkpoint(_part(checkpoint.tensors, "ema."), described, checkpoint.source)


def weights_of(prior: Checkpoint, ema: str = "ema") -> dict[str, Tensor]:
    """Weights of a prior by the network's names; `ema` chooses among several running means.

    Raises:
        CheckpointMismatchError: it has no mean of that name, or it is a whole training state.
    """
    further = prior.description.get("emas", [])
    if "history" in prior.description:
        raise CheckpointMismatchError(f"{prior.source} is a training state, expected a prior; take prior.safetensors or a snapshot")
    if ema != "ema" and ema not in further:
        raise CheckpointMismatchError(f"{prior.source} has no running mean {ema!r}; it has {', '.join(['ema', *further])}")
    if ema != "ema":
        return _part(prior.tensors, f"{ema}.")
    return {name: tensor for name, tensor in prior.tensors.items() if not name.startswith(tuple(f"{mean}." for mean in further))}


def load_weights(module: nn.Module, prior: Checkpoint, *, optional: str | None = None) -> None:
    """Copy weights of a prior by name, or leave the module as it is; stored floats may have another precision.

    Args:
        optional: a part, by how its names begin, that the prior may lack (it keeps the module's values) or the module (it is left out).

    Raises:
        CheckpointMismatchError: a name or a shape differs, or a value is not finite; the message names the first ones.
    """
    own, weights = module.state_dict(), weights_of(prior)
    if optional:
        mine, told = ({name: one for name, one in names.items() if name.startswith(optional)} for names in (own, weights))
        weights = {name: tensor for name, tensor in weights.items() if mine or name not in told} | ({} if told else mine)
    floats = [name for name, tensor in weights.items() if name in own and tensor.is_floating_point() and own[name].is_floating_point()]
    weights |= {name: weights[name].to(own[name].dtype) for name in floats}
    _require_fit(own, weights, prior.source, FIX_PRIOR)
    module.load_state_dict(weights)


def begin_with(state: State, prior: Checkpoint) -> None:
    """Weights of a trained prior as the first ones of a new run; its running means begin there too.

    A `spread` that the prior has not learned begins untrained; one that is not to be learned is left out.

    Raises:
        CheckpointMismatchError: they do not fit the network.
    """
    load_weights(state.denoiser.network, prior, optional="spread.")
    for mean in running_means(state).values():
        load_weights(mean.network, prior, optional="spread.")


@dataclass(frozen=True)
class Prior:
    """A trained denoiser with the units it lives in. `noise_maps`: whether it was trained on maps of sigma."""

    denoiser: Denoiser
    scaling: Scaling
    noise_maps: bool

    def __repr__(self) -> str:
        millions = sum(weights.numel() for weights in self.denoiser.parameters()) / 1e6
        maps = "trained on noise maps" if self.noise_maps else "trained on uniform noise"
        return f"Prior({type(self.denoiser.network).__name__}, {millions:.2f} million parameters, {maps}, {self.scaling})"


def network_choice(prior: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Name and options of the network of a prior.

    Raises:
        CheckpointMismatchError: the description is not that of a prior of this format.
    """
    description = prior.description
    if description.get("format") != FORMAT:
        raise CheckpointMismatchError(
            f"{prior.source}: got format {description.get('format')!r}, expected {FORMAT}; read it with the version that wrote it"
        )
    try:
        name, options = description["network"]["name"], dict(description["network"]["options"])
        Scaling(**description["scaling"]), float(description["sigma_data"]), str(description["corruption"]["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatchError(
            f"{prior.source} does not describe a prior ({type(error).__name__}: {error}), expected network, scaling, sigma_data and "
            "corruption in its header; export it again with `kedro run --pipelines training`"
        ) from error
    return name, options


def build_prior(checkpoint: Checkpoint, network: nn.Module) -> Prior:
    """Weights into `network`, frozen.

    Raises:
        CheckpointMismatchError: they do not fit.
    """
    load_weights(network, checkpoint)
    network_choice(checkpoint)
    description = checkpoint.description
    denoiser = Denoiser(network, description["sigma_data"]).requires_grad_(False).eval()
    return Prior(denoiser, Scaling(**description["scaling"]), description["corruption"]["name"] != "uniform")
