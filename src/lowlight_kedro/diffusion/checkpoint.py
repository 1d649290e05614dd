"""A training state as named tensors and a description, and back; nothing is pickled."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.denoiser import Denoiser
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.state import State

LOGS = ("history", "losses", "gradient_norms")  # of `State`: lists of numbers


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON-able values."""

    tensors: dict[str, Tensor]
    description: dict[str, Any]


class CheckpointMismatchError(ValueError):
    """A checkpoint that does not fit what it is asked for."""


def digest(checkpoint: Checkpoint) -> str:
    """The same for the same weights and description."""
    told = hashlib.sha256(json.dumps(checkpoint.description, sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        told.update(name.encode())
        told.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights by name.

    Raises:
        CheckpointMismatchError: a name or a shape differs; the message names the first ones.
    """
    own = module.state_dict()
    wrong = [
        f"{name}: checkpoint {tuple(tensors[name].shape) if name in tensors else 'lacks it'}, "
        f"network {tuple(own[name].shape) if name in own else 'lacks it'}"
        for name in sorted({*own, *tensors})
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise CheckpointMismatchError("the checkpoint does not fit the network: " + "; ".join(wrong[:3]))
    module.load_state_dict(dict(tensors))


def _averages(state: State) -> Iterator[tuple[str, Denoiser]]:
    """Running means with the prefixes of their tensors: the first is `ema`, others have their own names."""
    for number, (name, average) in enumerate(state.averages.items()):
        yield f"{name}." if number else "ema.", average


def pack(state: State, description: Mapping[str, Any]) -> Checkpoint:
    """The whole state; the tensors are views of the live ones, so save before training goes on."""
    tensors = {f"weights.{name}": tensor for name, tensor in state.denoiser.network.state_dict().items()}
    for prefix, average in _averages(state):
        tensors |= {f"{prefix}{name}": tensor for name, tensor in average.network.state_dict().items()}
    for number, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    progress = {name: getattr(state, name) for name in ("images", *LOGS)}
    return Checkpoint(tensors, dict(description) | progress | {"averages": list(state.averages)})


def unpack(checkpoint: Checkpoint, state: State, description: Mapping[str, Any]) -> None:
    """Put a checkpoint into a fresh `state`.

    Raises:
        CheckpointMismatchError: it was trained with another `description` (network, data, scaling, ...).
    """
    stored = {"averages": ["halflife"]} | checkpoint.description  # the only kind before they had names
    differs = [
        f"{key}: checkpoint {stored.get(key)!r}, now {value!r}"
        for key, value in (dict(description) | {"averages": list(state.averages)}).items()
        if stored.get(key) != value
    ]
    if differs:
        raise CheckpointMismatchError(
            "the training state on disk is of another run: " + "; ".join(differs) + "; set training.resume=false to start "
            "afresh over it, or point the catalog entry training_state elsewhere"
        )
    load_weights(state.denoiser.network, _part(checkpoint.tensors, "weights."))
    for prefix, average in _averages(state):
        load_weights(average.network, _part(checkpoint.tensors, prefix))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(checkpoint.tensors, "adam.").items():
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = tensor
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": moments})
    state.images = checkpoint.description["images"]
    for name in LOGS:
        setattr(state, name, list(checkpoint.description.get(name, [])))


def begin_with(state: State, prior: Checkpoint) -> None:
    """Weights of a trained prior as the first ones of a new run; its running means begin there too.

    Raises:
        CheckpointMismatchError: they do not fit the network.
    """
    load_weights(state.denoiser.network, prior.tensors)
    for average in state.averages.values():
        load_weights(average.network, prior.tensors)


def prior_of(checkpoint: Checkpoint) -> Checkpoint:
    """What inference needs of a training state: the EMA weights and the description without the history."""
    description = {key: value for key, value in checkpoint.description.items() if key not in LOGS}
    return Checkpoint(_part(checkpoint.tensors, "ema."), description)


@dataclass(frozen=True)
class Prior:
    """A trained denoiser with the units it lives in. `noise_maps`: whether it was trained on maps of sigma."""

    denoiser: Denoiser
    scaling: Scaling
    noise_maps: bool


def build_prior(checkpoint: Checkpoint, network: nn.Module) -> Prior:
    """Weights into `network`, frozen.

    Raises:
        CheckpointMismatchError: they do not fit.
    """
    load_weights(network, checkpoint.tensors)
    description = checkpoint.description
    denoiser = Denoiser(network, description["sigma_data"]).requires_grad_(False).eval()
    return Prior(denoiser, Scaling(**description["scaling"]), description["corruption"]["name"] != "uniform")
