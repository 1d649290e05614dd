"""The same frames by several methods, side by side: run by name."""

from lowlight_kedro.pipelines.comparison.pipeline import create_pipeline

__all__ = ["create_pipeline"]
