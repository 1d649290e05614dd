"""Parameters of the training pipeline."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lowlight_kedro.bounds import Count, Fraction, Natural, NotNegative, Positive
from lowlight_kedro.diffusion.compute import Compute
from lowlight_kedro.diffusion.ema import EMAS, Keep
from lowlight_kedro.diffusion.networks import NETWORKS
from lowlight_kedro.diffusion.scaling import Scaling
from lowlight_kedro.diffusion.training import History, Schedule
from lowlight_kedro.diffusion.validation import ticks_without_gain
from lowlight_kedro.pipelines.options import Choice, Options, of
from lowlight_kedro.plugins import configured
from lowlight_kedro.restoration.corruption import ALL_CORRUPTIONS

Auto = Literal["auto"]
COURSE = ("learn", "total_kimg", "learning_rate", "ramp_kimg", "decay_kimg", "cooldown", "max_gradient")


class LoaderOptions(Options):
    """torch's DataLoader."""

    workers: Natural
    pin_memory: bool
    persistent_workers: bool
    prefetch_factor: Count


class SpreadOptions(Options):
    """The second answer of the network, see `networks.pyramid.Spread`."""

    widths: Annotated[list[Count], Field(min_length=1)]
    blocks: Count


class ValidateOptions(Options):
    """What is measured at every tick, with the same tiles and the same noise each time."""

    tiles: Count
    batch: Count
    crop: Annotated[int, Field(ge=16)]
    sigmas: list[Positive]

    def columns(self) -> list[str]:
        """Their names in the history."""
        return [f"{raw}{kind}_{sigma:g}" for raw in ("", "raw_") for kind in ("psnr", "ssim") for sigma in self.sigmas]


class SelectionOptions(Options):
    """Which snapshot is the best, and when more training will not help."""

    column: str
    patience_ticks: Count | None
    min_delta: NotNegative

    def enough(self, history: History) -> bool:
        """Whether to end the run."""
        return self.patience_ticks is not None and ticks_without_gain(history, self.column, self.min_delta) >= self.patience_ticks


class TrainingOptions(Options):
    """All of `params:training`."""

    network: Annotated[Choice, of("network", NETWORKS)]
    spread: SpreadOptions | None
    learn: Literal["all", "spread", "second", "gate"]
    corruption: Annotated[Choice, of("corruption", ALL_CORRUPTIONS)]
    P_mean: float | Auto
    P_std: Positive | Auto
    sigma_data: Positive | Auto
    scaling: Scaling | Auto
    total_kimg: Positive
    batch_size: Count
    batch_gpu: Count | Auto
    learning_rate: Positive
    ramp_kimg: NotNegative
    decay_kimg: Positive | None
    cooldown: Fraction
    ema: Annotated[Choice, of("ema", EMAS)]
    kimg_per_tick: Positive
    snapshot_ticks: Count
    check_updates: Count
    max_gradient: Positive | None
    crop: Annotated[int, Field(ge=16)] | None
    compute: Compute
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
    def _something_to_learn(self) -> "TrainingOptions":
        if self.learn == "spread" and self.spread is None:
            raise ValueError("learn=spread trains nothing but the spread, and there is none: set training.spread, or training.learn=all")
        return self

    @model_validator(mode="after")
    def _known_column(self) -> "TrainingOptions":
        columns = ["loss", *self.validate_.columns()]
        if self.selection.column not in columns:
            raise ValueError(f"selection.column must be one of {', '.join(columns)}, got {self.selection.column!r}")
        return self

    def course(self) -> dict[str, Any]:
        """What a run may change on its way: kept in its state, so that a change can be told."""
        return self.model_dump(include=set(COURSE)) | {"ema": self.ema.describe()}

    def averages(self) -> dict[str, Keep]:
        """The running means of the weights that are kept."""
        return configured("ema", EMAS, self.ema.name, self.ema.chosen)()

    def schedule(self, batch_gpu: int) -> Schedule:
        """The part that the loop needs, with passes of `batch_gpu` images."""
        others = Schedule.__dataclass_fields__.keys() - {"averages", "batch_gpu", "precision"}
        numbers = {name: getattr(self, name) for name in others}
        return Schedule(**numbers, averages=self.averages(), batch_gpu=batch_gpu, precision=self.compute.precision)
