"""Parameters of the photographs pipeline."""

from fnmatch import fnmatch
from typing import Annotated

from pydantic import Field, field_validator

from lowlight_kedro.pipelines.options import Options
from lowlight_kedro.pipelines.preprocessing.options import Split

Matrix = Annotated[list[float], Field(min_length=9, max_length=9)]


class PointOptions(Options):
    """Stars and lamps that are put upon some of the tiles."""

    share: Annotated[float, Field(ge=0, le=1)]
    count: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    fwhm: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    peak: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class PhotographOptions(Options):
    """All of `params:photographs`."""

    size: Annotated[int, Field(ge=16)]
    stride: Annotated[int, Field(ge=1)]
    shrink: dict[str, Annotated[int, Field(ge=1)]]
    exposures: tuple[float, float]
    min_std: Annotated[float, Field(ge=0)]
    lateral_colour: Annotated[float, Field(ge=0)]
    points: PointOptions
    cameras: Annotated[dict[str, Matrix], Field(min_length=1)]
    shares: dict[Split, Annotated[float, Field(ge=0)]]
    splits: dict[str, Split]
    seed: int

    @field_validator("exposures")
    @classmethod
    def _ordered(cls, exposures: tuple[float, float]) -> tuple[float, float]:
        if not 0 < exposures[0] <= exposures[1] <= 1:
            raise ValueError(f"exposures must be 0 < low <= high <= 1, got {list(exposures)}")
        return exposures

    def factor(self, name: str) -> int:
        """How much the photograph is shrunk: of the first pattern that fits its name, else 1."""
        return next((factor for pattern, factor in self.shrink.items() if fnmatch(name, pattern)), 1)
