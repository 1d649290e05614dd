"""Phase 2: P(x_clean | y_noisy) for short exposures."""

from lowlight_kedro.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
