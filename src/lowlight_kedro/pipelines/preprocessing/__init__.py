"""Raws to validated-ready tiles: index, pair, demosaic, cut, describe."""

from lowlight_kedro.pipelines.preprocessing.pipeline import create_pipeline

__all__ = ["create_pipeline"]
