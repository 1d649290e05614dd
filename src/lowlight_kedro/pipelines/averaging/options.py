"""Parameters of the averaging pipeline."""

from typing import Annotated

from pydantic import Field

from lowlight_kedro.diffusion.ema import WIDEST
from lowlight_kedro.pipelines.options import Options


class AveragingOptions(Options):
    """All of `params:averaging`."""

    sigma_rel: Annotated[float, Field(gt=0, le=WIDEST)]
