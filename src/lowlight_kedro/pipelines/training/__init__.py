"""Phase 1: the prior P(x_clean), from validated clean tiles."""

from lowlight_kedro.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
