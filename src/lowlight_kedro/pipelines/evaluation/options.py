"""Parameters of the evaluation pipeline."""

from typing import Annotated, Literal

from pydantic import Field

from lowlight_kedro.pipelines.options import Options


class EvaluationOptions(Options):
    """All of `params:evaluation`."""

    metrics: Annotated[list[str], Field(min_length=1)]
    ratio: Literal["measured", "nominal", "restored"]
    mask: bool
    picture_crop: Annotated[int, Field(ge=16)]
