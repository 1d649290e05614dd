"""Parameters of the preprocessing pipeline."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from numpy.typing import NDArray
from pydantic import Field, model_validator

from lowlight_kedro.bounds import Count, NotNegative
from lowlight_kedro.datasets.libraw import PREFIX, libraw_demosaicer
from lowlight_kedro.pipelines.options import Options, checked, known
from lowlight_kedro.plugins import choose, code_of
from lowlight_kedro.sensor.alignment import PairLimits
from lowlight_kedro.sensor.cfa import UNFILTERED, Cfa
from lowlight_kedro.sensor.demosaic import DEMOSAICERS, Demosaicer, demosaic, scale_of
from lowlight_kedro.sensor.frame import Frame
from lowlight_kedro.sensor.scenes import LAYOUTS

Split = Literal["train", "val", "test"]


def _require_scene(pattern: str) -> None:
    if "scene" not in re.compile(pattern).groupindex:
        raise ValueError(f"scene_pattern must have a group (?P<scene>...), got {pattern!r}")


class SplitOptions(Options):
    """Which scenes train, validate and test."""

    rule: Literal["first_digit", "hash"]
    fractions: dict[Split, NotNegative]
    scenes: dict[str, Split]


@dataclass(frozen=True)
class PairingOptions(PairLimits):
    """Which pairs of exposures are good enough: whether they are checked, and pairs that are left out, with the reason."""

    check: bool
    exclude: dict[str, str]


class TileOptions(Options):
    """Geometry and content of tiles."""

    size: Annotated[int, Field(ge=16)]
    stride: Count
    data_types: list[Literal["long", "short"]]
    storage: Literal["stack", "pt"]

    @model_validator(mode="after")
    def _stride_in_size(self) -> "TileOptions":
        if self.stride > self.size:
            raise ValueError(f"stride must be in [1, size], got stride={self.stride}, size={self.size}")
        return self


def find_demosaicer(name: str) -> Demosaicer:
    """The project's own, LibRaw's (`libraw:AHD`) or a plug-in."""
    if name.startswith(PREFIX):
        return libraw_demosaicer(name.removeprefix(PREFIX))
    return choose("demosaicer", DEMOSAICERS, name)


DemosaicerName = Annotated[str, checked(find_demosaicer)]


class DemosaicerOptions(Options):
    """Demosaicer by kind of colour filter array."""

    bayer: DemosaicerName
    xtrans: DemosaicerName

    def chosen(self, cfa: Cfa) -> Demosaicer:
        """The demosaicer for a pattern; without filters there is nothing to do."""
        if cfa == UNFILTERED:
            return lambda light, _: light
        return find_demosaicer(self.xtrans if len(cfa) == 6 else self.bayer)

    def code(self) -> dict[str, str]:
        """Of demosaicers from elsewhere, see `code_of`."""
        return code_of("demosaicer", DEMOSAICERS, {name for name in (self.bayer, self.xtrans) if not name.startswith(PREFIX)})

    def scale(self, cfa: Cfa) -> int:
        """Photosites per pixel of the result along a side: 1 but for demosaicers that give smaller images."""
        return scale_of(self.chosen(cfa), cfa)

    def demosaic(self, frame: Frame) -> NDArray:
        """White-balanced linear RGB of `frame`, by the demosaicer for its pattern."""
        return demosaic(frame, self.chosen(frame.cfa))


class PreprocessingOptions(Options):
    """All of `params:preprocessing`."""

    layout: Annotated[str, known("layout", LAYOUTS)]
    scene_pattern: Annotated[str, checked(_require_scene)]
    burst_gap_s: NotNegative | None
    split: SplitOptions
    pairing: PairingOptions
    tiles: TileOptions
    demosaicer: DemosaicerOptions

    def tile_sides(self) -> dict[str, int]:
        """See `Options`."""
        return {"tiles.size": self.tiles.size}
