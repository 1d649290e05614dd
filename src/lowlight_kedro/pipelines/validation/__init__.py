"""Are the tiles fit for training? Nothing trains before this pipeline says yes."""

from lowlight_kedro.pipelines.validation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
