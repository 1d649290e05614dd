"""Parameters of the training pipeline."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lowlight_kedro.diffusion.schedule import Schedule
from lowlight_kedro.pipelines.options import Choice, Options

Positive = Annotated[float, Field(gt=0)]
Auto = Literal["auto"]


class LoaderOptions(Options):
    """torch's DataLoader."""

    workers: Annotated[int, Field(ge=0)]
    pin_memory: bool
    persistent_workers: bool
    prefetch_factor: Annotated[int, Field(ge=1)]


class ValidateOptions(Options):
    """What is measured at every tick, with the same tiles and the same noise each time."""

    tiles: Annotated[int, Field(ge=1)]
    crop: Annotated[int, Field(ge=16)]
    sigmas: list[Positive]


class TrainingOptions(Options):
    """All of `params:training`."""

    network: Choice
    corruption: Choice
    P_mean: float | Auto
    P_std: Positive | Auto
    sigma_data: Positive | Auto
    total_kimg: Positive
    batch_size: Annotated[int, Field(ge=1)]
    batch_gpu: Annotated[int, Field(ge=1)]
    learning_rate: Positive
    ramp_kimg: Annotated[float, Field(ge=0)]
    cooldown: Annotated[float, Field(ge=0, le=1)]
    ema_halflife_kimg: Positive
    ema_rampup: Positive
    kimg_per_tick: Positive
    snapshot_ticks: Annotated[int, Field(ge=1)]
    max_gradient: Positive | None
    crop: Annotated[int, Field(ge=16)] | None
    precision: Literal["fp32", "bf16"]
    seed: int
    device: str
    devices: Annotated[int, Field(ge=1)] | Auto = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    rendezvous: str | None = None
    resume: bool
    loader: LoaderOptions
    validate_: ValidateOptions = Field(alias="validate")

    @model_validator(mode="after")
    def _whole_passes(self) -> "TrainingOptions":
        if self.batch_size % self.batch_gpu:
            raise ValueError(f"batch_size must be a multiple of batch_gpu, got batch_size={self.batch_size}, batch_gpu={self.batch_gpu}")
        return self

    def schedule(self) -> Schedule:
        """The part that the loop needs."""
        return Schedule(**{name: getattr(self, name) for name in Schedule.__dataclass_fields__})
