"""Parameters of how training is computed."""

from typing import Annotated, Literal

from pydantic import Field

from lowlight_kedro.diffusion.compute import Compute
from lowlight_kedro.diffusion.memory import PassLimits
from lowlight_kedro.pipelines.options import Options

Share = Annotated[float, Field(gt=0, le=1)]


class LimitOptions(Options):
    """What `batch_gpu: auto` may take."""

    gpu_share: Share
    cpu_share: Share
    cpu_images: Annotated[int, Field(ge=1)]

    def build(self) -> PassLimits:
        """For `fitting_pass`."""
        return PassLimits(**self.model_dump())


class ComputeOptions(Options):
    """`params:training.compute`: changes speed, memory and rounding, never what is computed."""

    precision: Literal["fp32", "bf16"]
    tf32: bool
    cudnn_benchmark: bool
    channels_last: bool
    checkpointing: bool
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None
    limits: LimitOptions

    def build(self) -> Compute:
        """For `prepare`, `compile_network` and `gpu_arithmetic`."""
        return Compute(**self.model_dump(exclude={"limits"}))
