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

A prior (`prior_of`, `prior.snapshot_of`) holds the running mean only, `<name>` without a prefix; of further means there are
`<ema>.<name>`, and `emas` in the description lists them (`weights_of`). A snapshot also has `figures`, its row of the history.

NaN and infinity are refused when saving, so that the last sound state stays, and when loading, because a file may be
changed by others. A file that does not fit changes nothing: all is checked before the first value is copied.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.training import State

FORMAT = 1
PROGRESS = (  # what may change while one run goes on
    "images", "history", "losses", "gradient_norms", "idle", "figures", "best_by", "emas", "course",
)  # fmt: skip


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


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
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


def require_fit(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str, fix: str) -> None:
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
    moments = by_name(part_of(checkpoint.tensors, "adam."), state.denoiser.network)
    models = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("adam.")}
    wanted = expected_moments(state, description.get("idle", [])) if description["images"] else {}
    require_fit(_models(state) | _prefixed("adam", wanted), models | _prefixed("adam", moments), checkpoint.source, FIX_STATE)
    for name, model in {"weights": state.denoiser, **running_means(state)}.items():
        model.network.load_state_dict(part_of(models, f"{name}."))
    load_moments(state, moments)
    state.images, state.history, state.losses = description["images"], list(description["history"]), list(description["losses"])
    state.gradient_norms = list(description.get("gradient_norms", []))


MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # the first is a count, the others have the shape of the parameter


def names_of(network: nn.Module) -> dict[Tensor, str]:
    """The names of the parameters, in the network's order."""
    return {parameter: name for name, parameter in network.named_parameters()}


def moments_of(state: State) -> dict[str, Tensor]:
    """`<parameter>.<moment>` of all parameters that were updated."""
    names = names_of(state.denoiser.network)
    return {
        f"{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, moments in state.optimizer.state.items()
        for key, value in moments.items()
    }


def idle_parameters(state: State) -> list[str]:
    """Trainable parameters without moments: no gradient reached them so far."""
    names = names_of(state.denoiser.network)
    return [name for parameter, name in names.items() if parameter.requires_grad and parameter not in state.optimizer.state]


def expected_moments(state: State, idle: Collection[str]) -> dict[str, Tensor]:
    """Tensors of the names, shapes and types that the moments of all but the `idle` parameters have."""
    names = names_of(state.denoiser.network)
    moving = {name: parameter for parameter, name in names.items() if parameter.requires_grad and name not in idle}
    return {
        f"{name}.{key}": torch.zeros(()) if key == "step" else parameter.detach() for name, parameter in moving.items() for key in MOMENTS
    }


def by_name(moments: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Moments under the names of parameters where a file numbers them, as the first files did."""
    names, renamed = list(names_of(network).values()), {}
    for full, tensor in moments.items():
        owner, _, key = full.rpartition(".")
        numbered = owner.isdecimal() and owner not in names and int(owner) < len(names)
        renamed[f"{names[int(owner)]}.{key}" if numbered else full] = tensor
    return renamed


def load_moments(state: State, moments: Mapping[str, Tensor]) -> None:
    """Copies of `moments` (by name) into the optimiser."""
    names = names_of(state.denoiser.network)
    ordered = [names[parameter] for group in state.optimizer.param_groups for parameter in group["params"]]
    stored = {
        number: {key: moments[f"{name}.{key}"].clone() for key in MOMENTS}
        for number, name in enumerate(ordered)
        if f"{name}.{MOMENTS[0]}" in moments
    }
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": stored})
