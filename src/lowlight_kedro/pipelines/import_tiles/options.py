"""Parameters of the import_tiles pipeline."""

from typing import Annotated

from pydantic import Field

from lowlight_kedro.pipelines.options import Options


class ImportOptions(Options):
    """All of `params:import_tiles`."""

    image_size: Annotated[int, Field(ge=16)]
    tiles_per_stack: Annotated[int, Field(ge=1)]
    clip: bool
