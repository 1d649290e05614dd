"""Existing folders of `.pt` tiles to stacks; run by name, not part of `kedro run`."""

from lowlight_kedro.pipelines.import_tiles.pipeline import create_pipeline

__all__ = ["create_pipeline"]
