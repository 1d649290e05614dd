"""Tiles from finished photographs, where there are no clean raws: run by name."""

from lowlight_kedro.pipelines.photographs.pipeline import create_pipeline

__all__ = ["create_pipeline"]
