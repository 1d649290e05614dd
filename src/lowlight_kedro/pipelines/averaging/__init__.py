"""Another running mean after a training: run by name."""

from lowlight_kedro.pipelines.averaging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
