"""Parameters of the calibration pipeline."""

from typing import Annotated, Literal

from pydantic import Field

from lowlight_kedro.pipelines.options import Options
from lowlight_kedro.pipelines.preprocessing.options import Split


class PairOptions(Options):
    """Pairs of exposures that are measured."""

    splits: list[Split]
    max_per_iso: Annotated[int, Field(ge=0)]


class ImageOptions(Options):
    """Single frames that are measured."""

    data_types: list[Literal["long", "short"]]
    max_per_iso: Annotated[int, Field(ge=0)]


class CalibrationOptions(Options):
    """All of `params:calibration`."""

    methods: list[Literal["flats", "pairs", "image", "tag"]]
    pairs: PairOptions
    image: ImageOptions
