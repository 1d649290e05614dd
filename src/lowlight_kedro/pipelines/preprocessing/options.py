"""Parameters of the preprocessing pipeline."""

import re
from typing import Annotated, Literal

from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from lowlight_kedro.pipelines.options import Options
from lowlight_kedro.plugins import choose
from lowlight_kedro.sensor.alignment import PairLimits
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, demosaic
from lowlight_kedro.sensor.frame import Frame

Split = Literal["train", "val", "test"]


def _scene_pattern(pattern: str) -> str:
    if "scene" not in re.compile(pattern).groupindex:
        raise ValueError(f"scene_pattern must have a group (?P<scene>...), got {pattern!r}")
    return pattern


class SplitOptions(Options):
    """Which scenes train, validate and test."""

    rule: Literal["first_digit", "hash"]
    shares: dict[Split, Annotated[float, Field(ge=0)]]
    scenes: dict[str, Split]


class PairingOptions(Options):
    """Which pairs of exposures are good enough; limits as in `sensor.alignment.PairLimits`."""

    check: bool
    max_ratio_error: Annotated[float, Field(gt=0)]
    max_shift: Annotated[float, Field(ge=0)]
    max_moving: Annotated[float, Field(ge=0, le=1)]
    exclude: dict[str, str]

    @property
    def limits(self) -> PairLimits:
        """The limits of the check."""
        return PairLimits(self.max_ratio_error, self.max_shift, self.max_moving)


class TileOptions(Options):
    """Geometry and content of tiles."""

    size: Annotated[int, Field(ge=16)]
    stride: Annotated[int, Field(ge=1)]
    data_types: list[Literal["long", "short"]]
    storage: Literal["stack", "pt"]

    @model_validator(mode="after")
    def _stride_in_size(self) -> "TileOptions":
        if self.stride > self.size:
            raise ValueError(f"stride must be in [1, size], got stride={self.stride}, size={self.size}")
        return self


class DemosaicerOptions(Options):
    """Demosaicer by kind of colour filter array."""

    bayer: str
    xtrans: str

    def demosaic(self, frame: Frame) -> NDArray:
        """White-balanced linear RGB of `frame`, by the demosaicer for its pattern."""
        name = self.xtrans if len(frame.cfa) == 6 else self.bayer
        return demosaic(frame, choose("demosaicer", DEMOSAICERS, name))


class PreprocessingOptions(Options):
    """All of `params:preprocessing`."""

    layout: str
    scene_pattern: Annotated[str, AfterValidator(_scene_pattern)]
    burst_gap_s: Annotated[float, Field(ge=0)] | None
    split: SplitOptions
    pairing: PairingOptions
    tiles: TileOptions
    demosaicer: DemosaicerOptions
