"""Parameters of the validation pipeline."""

from typing import Annotated, Literal

from pydantic import Field

from lowlight_kedro.pipelines.options import Options


class ValidationOptions(Options):
    """All of `params:validation`."""

    image_size: Annotated[int, Field(ge=16)]
    min_std: Annotated[float, Field(ge=0)]
    max_saturated: Annotated[float, Field(ge=0, le=1)]
    on_content: Literal["stop", "drop"]
