"""The pipelines by name."""

from kedro.pipeline import Pipeline

from lowlight_kedro.pipelines import (
    averaging,
    calibration,
    comparison,
    evaluation,
    import_tiles,
    inference,
    photographs,
    preprocessing,
    training,
    validation,
)

STAGES = {
    "preprocessing": preprocessing,
    "calibration": calibration,
    "validation": validation,
    "training": training,
    "inference": inference,
    "evaluation": evaluation,
}


def register_pipelines() -> dict[str, Pipeline]:
    """Each stage alone, and all of them in order as `__default__`; what is run by name only."""
    pipelines = {name: stage.create_pipeline() for name, stage in STAGES.items()}
    by_name = {
        "import_tiles": import_tiles.create_pipeline(),
        "photographs": photographs.create_pipeline(),
        "comparison": comparison.create_pipeline(),
        "averaging": averaging.create_pipeline(),
    }
    return pipelines | by_name | {"__default__": sum(pipelines.values(), Pipeline([]))}
