"""Parameters of the training pipeline."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lowlight_kedro.diffusion.ema import EMAS, Keep
from lowlight_kedro.diffusion.training import History, Schedule, ticks_without_gain
from lowlight_kedro.pipelines.options import Choice, Options
from lowlight_kedro.pipelines.training.compute_options import ComputeOptions
from lowlight_kedro.plugins import configured

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
    batch: Annotated[int, Field(ge=1)]
    crop: Annotated[int, Field(ge=16)]
    sigmas: list[Positive]

    def columns(self) -> list[str]:
        """Their names in the history."""
        return [f"{raw}{kind}_{sigma:g}" for raw in ("", "raw_") for kind in ("psnr", "ssim") for sigma in self.sigmas]


class SelectionOptions(Options):
    """Which snapshot is the best, and when more training will not help."""

    column: str
    patience_ticks: Annotated[int, Field(ge=1)] | None
    min_delta: Annotated[float, Field(ge=0)]

    def enough(self, history: History) -> bool:
        """Whether to end the run."""
        return self.patience_ticks is not None and ticks_without_gain(history, self.column, self.min_delta) >= self.patience_ticks


class ScalingOptions(Options):
    """Units of the network, see `diffusion.scaling.Scaling`."""

    mean: float
    scale: Positive


class TrainingOptions(Options):
    """All of `params:training`."""

    network: Choice
    corruption: Choice
    P_mean: float | Auto
    P_std: Positive | Auto
    sigma_data: Positive | Auto
    scaling: ScalingOptions | Auto
    total_kimg: Positive
    batch_size: Annotated[int, Field(ge=1)]
    batch_gpu: Annotated[int, Field(ge=1)] | Auto
    learning_rate: Positive
    ramp_kimg: Annotated[float, Field(ge=0)]
    decay_kimg: Positive | None
    cooldown: Annotated[float, Field(ge=0, le=1)]
    ema: Choice
    kimg_per_tick: Positive
    snapshot_ticks: Annotated[int, Field(ge=1)]
    check_updates: Annotated[int, Field(ge=1)]
    max_gradient: Positive | None
    crop: Annotated[int, Field(ge=16)] | None
    compute: ComputeOptions
    seed: int
    device: str
    resume: bool
    export: Literal["last", "best"]
    loader: LoaderOptions
    validate_: ValidateOptions = Field(alias="validate")
    selection: SelectionOptions

    @model_validator(mode="after")
    def _whole_passes(self) -> "TrainingOptions":
        if self.batch_gpu != "auto" and self.batch_size % self.batch_gpu:
            raise ValueError(
                f"batch_size must be a multiple of batch_gpu, got batch_size={self.batch_size}, batch_gpu={self.batch_gpu}; "
                "set training.batch_gpu to a divisor of batch_size, or to auto"
            )
        return self

    @model_validator(mode="after")
    def _known_column(self) -> "TrainingOptions":
        columns = ["loss", *self.validate_.columns()]
        if self.selection.column not in columns:
            raise ValueError(f"selection.column must be one of {', '.join(columns)}, got {self.selection.column!r}")
        return self

    def averages(self) -> dict[str, Keep]:
        """The running means of the weights that are kept."""
        return configured("ema", EMAS, self.ema.name, self.ema.chosen)()

    def schedule(self, batch_gpu: int) -> Schedule:
        """The part that the loop needs, with passes of `batch_gpu` images."""
        others = Schedule.__dataclass_fields__.keys() - {"averages", "batch_gpu", "precision"}
        numbers = {name: getattr(self, name) for name in others}
        return Schedule(**numbers, averages=self.averages(), batch_gpu=batch_gpu, precision=self.compute.precision)
