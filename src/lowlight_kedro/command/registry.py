"""The pipelines of the command: one, so that no other is imported."""

from kedro.pipeline import Pipeline

from lowlight_kedro.pipelines import inference


def register_pipelines() -> dict[str, Pipeline]:
    """Inference without its contact sheet: each result is a file of its own here, and each failure was told."""
    nodes = [node for node in inference.create_pipeline().nodes if node.name != "show_restored"]
    return {"inference": Pipeline(nodes), "__default__": Pipeline(nodes)}
