"""Measure the noise of cameras from whatever raws there are: flats and darks, pairs, single images, tags."""

from lowlight_kedro.pipelines.calibration.pipeline import create_pipeline

__all__ = ["create_pipeline"]
