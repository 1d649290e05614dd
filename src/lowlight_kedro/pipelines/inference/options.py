"""Parameters of the inference pipeline."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from lowlight_kedro.bounds import Fraction, Natural, Positive
from lowlight_kedro.pipelines.options import Choice, Options, checked
from lowlight_kedro.pipelines.preprocessing.options import DemosaicerOptions, Split
from lowlight_kedro.plugins import choose
from lowlight_kedro.restoration.settings import Highlights, Probing, Sampling, Structure
from lowlight_kedro.sensor.cfa import BAYER_RGGB, XTRANS
from lowlight_kedro.sensor.render import Display

Part = Literal["linear", "dng", "cfa", "srgb", "preview", "before", "std", "std_preview", "defects", "page"]  # of the catalog's `restored`


class SelectOptions(Options):
    """Which frames of the raw folder are restored."""

    data_types: list[Literal["long", "short"]]
    splits: list[Split]


class RatioOptions(Options):
    """The exposure ratio: the first of these that is given; else that of the pair; else by brightness."""

    value: Positive | None
    target_exposure_s: Positive | None
    target_brightness: Positive


class WindowOptions(Options):
    """Overlapping windows, see `restoration.windows.windowed`; `tolerance` in linear light, 1 = white."""

    size: Annotated[int, Field(ge=32)] | None
    memory_mb: Positive
    tolerance: Positive
    precision: Literal["fp32", "bf16", "auto"]


@dataclass(frozen=True)
class DisplayOptions(Display):
    """How bright a picture is shown, and the longer side of the preview, pixels; None: all of them."""

    preview_side: Annotated[int, Field(ge=16)] | None


def _require_size(demosaicer: DemosaicerOptions) -> None:
    if any(demosaicer.scale(cfa) != 1 for cfa in (BAYER_RGGB, XTRANS)):
        raise ValueError("before and after must have one size: choose a demosaicer other than superpixel in inference.demosaicer")


FullSizeDemosaicer = Annotated[DemosaicerOptions, checked(_require_size)]


class PageOptions(Options):
    """The page of a frame, see `evaluation.page`: the longer sides of its picture, its detail and the index's pictures, pixels."""

    picture_side: Annotated[int, Field(ge=16)]
    detail_side: Annotated[int, Field(ge=16)]
    index_side: Annotated[int, Field(ge=16)]


class InferenceOptions(Options):
    """All of `params:inference`."""

    input: str | list[str] | None
    select: SelectOptions
    exposure_ratio: RatioOptions
    crop: tuple[int, int, int, int] | None
    guidance: Choice
    estimate: Literal["mean", "sample", "mean_of_k"]
    strength: Fraction
    demosaicer: FullSizeDemosaicer
    refreshes: Natural
    symmetries: Literal[1, 2, 4, 8]
    uncertainty: Probing
    sample: Sampling
    max_saturated: Fraction
    highlights: Highlights
    measurement: Structure
    window: WindowOptions
    display: DisplayOptions
    page: PageOptions
    files: Annotated[list[Part], Field(min_length=1)]
    seed: int
    device: str

    def check_plug_ins(self) -> None:
        """See `Options`."""
        from lowlight_kedro.diffusion.samplers import SAMPLERS
        from lowlight_kedro.restoration.guidance import GUIDANCE

        self.guidance.check("guidance", GUIDANCE)
        choose("sampler", SAMPLERS, self.sample.sampler)

    def describe(self) -> dict[str, Any]:
        """What a result depends on, but for rounding, as it stands in records and keys."""
        return self.model_dump(exclude={"input", "select", "device", "files"}) | {"guidance": self.guidance.describe()}
