"""Adam's moments by the names of the parameters, whatever the order in the optimiser."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from lowlight_kedro.diffusion.training import State

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
