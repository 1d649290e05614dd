"""How a training step is computed, not what: precision, memory layout, recomputation, compilation.

Results differ by rounding at most. Weights keep their names and shapes, so a checkpoint does not tell how it was made.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lowlight_kedro.bounds import Count, PositiveFraction


@dataclass(frozen=True)
class PassLimits:
    """Fractions of the memory that a pass may take, with weights and optimiser: of what a GPU has left, of all that the machine has.

    `cpu_images`: at most so many images a pass where the network runs on a CPU.
    """

    gpu_fraction: PositiveFraction = 0.9
    cpu_fraction: PositiveFraction = 0.25
    cpu_images: Count = 16


@dataclass(frozen=True)
class Compute:
    """`params:training.compute`: changes speed, memory and rounding, never what is computed.

    Attributes:
        precision: `fp32`, or `bf16`: autocast of the network; preconditioning, loss, weights, EMA and Adam stay in fp32. `auto`: see
            `settled`.
        tf32: products of fp32 matrices and convolutions on a GPU are rounded to 10 bits of mantissa. cudnn_benchmark:
            convolution algorithms are chosen by trial. Both only while training, see `gpu_arithmetic`.
        channels_last: NHWC memory. checkpointing: blocks are computed again in the backward pass, see `checkpoint_blocks`.
        compile: mode of torch.compile (`default`, `reduce-overhead` with CUDA graphs, `max-autotune`); None: off.
        limits: of `batch_gpu: auto`.
    """

    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    tf32: bool = False
    cudnn_benchmark: bool = True
    channels_last: bool = False
    checkpointing: bool = False
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    limits: PassLimits = PassLimits()


def network_precision(precision: str, device: torch.device) -> torch.autocast:
    """The context in which the loss is called: bf16 where torch deems it safe, or nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def holding(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block `owner.name` is `value`, afterwards what it was."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def gpu_arithmetic(compute: Compute) -> Iterator[None]:
    """Within the block TF32 and cuDNN's choice by trial are as `compute` says, afterwards as before.

    torch 2.9 and newer name the precision (`fp32_precision`, ieee | tf32); older ones have `allow_tf32`. The two must not be mixed.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    named = ((matmul, "fp32_precision"), (getattr(cudnn, "conv", None), "fp32_precision"))
    new = all(hasattr(owner, name) for owner, name in named)
    value: Any = ("tf32" if compute.tf32 else "ieee") if new else compute.tf32
    with ExitStack() as stack:
        for owner, name in named if new else ((matmul, "allow_tf32"), (cudnn, "allow_tf32")):
            stack.enter_context(holding(owner, name, value))
        stack.enter_context(holding(cudnn, "benchmark", compute.cudnn_benchmark))
        yield


def lay_out(modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Weights to NHWC, and the optimiser's moments to the layout of their weights.

    To be called after a checkpoint is loaded: fused Adam walks through weights and moments in memory order, so moments in another
    order than their weights would belong to other weights.
    """
    for module in modules:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for weights, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weights.shape:
                moments[name] = torch.empty_like(weights).copy_(value)


def residual_blocks(network: nn.Module) -> list[nn.Module]:
    """The outermost modules whose class says `residual = True`, in order."""
    if getattr(network, "residual", False):
        return [network]
    return [block for child in network.children() for block in residual_blocks(child)]


def checkpoint_blocks(network: nn.Module) -> None:
    """Keep each residual block's input only, and compute what is inside again in the backward pass (Chen et al. 2016).

    Raises:
        ValueError: no class of a block says `residual = True`.
    """
    blocks = residual_blocks(network)
    if not blocks:
        raise ValueError(
            f"checkpointing: {type(network).__name__} has no block whose class says `residual = True`; mark them, or turn it off"
        )
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def prepare(denoiser: nn.Module, means: Iterable[nn.Module], optimizer: torch.optim.Optimizer, compute: Compute) -> None:
    """Layout and recomputation, for a denoiser whose weights are loaded, the running `means` of it, and its optimiser."""
    if compute.channels_last:
        lay_out([denoiser, *means], optimizer)
    if compute.checkpointing:
        checkpoint_blocks(denoiser)


def compile_network(network: nn.Module, compute: Compute, backend: str = "inductor") -> None:
    """Compile in place where asked, at the first call; names in the state dict stay. After a pass size was tried: sizes recompile."""
    if compute.compile is not None:
        network.compile(backend=backend, **({"mode": compute.compile} if backend == "inductor" else {}))
