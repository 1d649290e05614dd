"""snapshots of a training -> prior."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.averaging.nodes import average_snapshots


def create_pipeline() -> Pipeline:
    """The averaging pipeline."""
    return Pipeline([Node(average_snapshots, ["snapshots", "params:averaging"], "prior", name="average_snapshots")])
