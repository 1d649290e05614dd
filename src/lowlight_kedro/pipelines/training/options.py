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
    best_by: str  # column of the history by which the best snapshot is chosen


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
    resume: bool
    export: Literal["last", "best"]
    loader: LoaderOptions
    validate_: ValidateOptions = Field(alias="validate")

    @model_validator(mode="after")
    def _best_by_a_column(self) -> "TrainingOptions":
        columns = ["loss", *(f"{kind}_{sigma:g}" for sigma in self.validate_.sigmas for kind in ("psnr", "ssim"))]
        if self.validate_.best_by not in columns:
            raise ValueError(f"validate.best_by must be one of {', '.join(columns)}; got {self.validate_.best_by!r}")
        return self

    @model_validator(mode="after")
    def _whole_passes(self) -> "TrainingOptions":
        if self.batch_size % self.batch_gpu:
            raise ValueError(f"batch_size must be a multiple of batch_gpu, got batch_size={self.batch_size}, batch_gpu={self.batch_gpu}")
        return self

    def schedule(self) -> Schedule:
        """The part that the loop needs."""
        return Schedule(**{name: getattr(self, name) for name in Schedule.__dataclass_fields__})
