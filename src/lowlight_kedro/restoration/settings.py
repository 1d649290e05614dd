"""How an estimate is made: numbers that the API and the parameters share.

Nothing heavy is imported here, because the command reads its parameters before torch comes.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from lowlight_kedro.bounds import Count, Fraction, Natural, Positive

Kind = Literal["mean", "sample", "mean_of_k"]  # of an estimate
SYMMETRIES = (1, 2, 4, 8)  # none, left and right, top and bottom too, rows and columns too


@dataclass(frozen=True)
class Sampling:
    """How a draw is made, see `posterior_sample`; and how many for `mean_of_k`.

    Attributes:
        sampler: by name, for guidances without a sampler of their own. sigma_min, sigma_max: its levels, network units.
        evaluations: of the prior, for one draw.
        draws: of `mean_of_k`.
    """

    sampler: str = "heun"
    evaluations: Count = 39
    sigma_min: Positive = 0.01
    sigma_max: Positive = 3.0
    draws: Annotated[int, Ge(2)] = 8

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min must be below sigma_max, got {self.sigma_min} and {self.sigma_max}")


@dataclass(frozen=True)
class Probing:
    """How the standard deviation is found without sampling; 0 probes: not at all.

    Attributes:
        by: `prior` takes what the prior has learned of it, where it has, see `pyramid.Spread`; `probes` asks how its mean responds.
        probes, spacing, reach, step: see `uncertainty.response_std`.
    """

    by: Literal["prior", "probes"] = "prior"
    probes: Natural = 1
    spacing: Count = 5
    reach: Natural = 8
    step: Positive = 1.0


@dataclass(frozen=True)
class Highlights:
    """The exposure at which the prior is asked: a `fraction` of the frame has a channel above `white`, see `familiar_ratio`."""

    fraction: Fraction = 0.005
    white: Positive = 0.6


@dataclass(frozen=True)
class Window:
    """Overlapping windows, see `windows.windowed`: largest side (None: as memory allows), MiB, and tolerance in light."""

    size: Annotated[int, Ge(32)] | None = None
    memory_mb: Positive = 500.0
    tolerance: Positive = 1e-3


@dataclass(frozen=True)
class Structure:
    """Which parts of the noise are handled as what they are; a part that the noise model lacks changes nothing.

    Attributes:
        saturation: clipped photosites say "at least", those piled up at black "at most"; otherwise they count as measured values.
        rows: offsets of sensor rows are estimated and taken off; otherwise they count as noise of each photosite.
        black: likewise the black-level error of each channel; where the noise model has none, dark frames are asked for it, see `black`.
        lines: offsets of rows and columns, slow bands and halves are learned from dark frames that show them clearly, whatever the noise
            model knows.
        defects: photosites that are hot or dead are looked for, see `sensor.defects`; otherwise they count as measured values.
        tails_nu: degrees of freedom of Student's t, by which outliers lose weight; None = Gaussian.
        points: points of light that the measurement shows, as stars, keep their light in a mean, see `restoration.points`.
    """

    saturation: bool = True
    rows: bool = True
    black: bool = True
    lines: bool = True
    defects: bool = True
    tails_nu: Positive | None = None
    points: bool = True


@dataclass(frozen=True)
class Settings:
    """How a frame is restored; the defaults are those of `lowlight restore`, every field is explained in parameters_inference.yml."""

    estimate: Kind = "mean"
    refreshes: int = 1
    symmetries: int = 1
    probing: Probing = field(default_factory=Probing)
    sampling: Sampling = field(default_factory=Sampling)
    structure: Structure = field(default_factory=Structure)
    window: Window = field(default_factory=Window)
    highlights: Highlights = field(default_factory=Highlights)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.refreshes < 0 or self.symmetries not in SYMMETRIES or self.estimate not in ("mean", "sample", "mean_of_k"):
            raise ValueError(
                f"estimate must be mean, sample or mean_of_k, refreshes at least 0 and symmetries one of {SYMMETRIES}, got "
                f"{self.estimate!r}, {self.refreshes}, {self.symmetries}"
            )
