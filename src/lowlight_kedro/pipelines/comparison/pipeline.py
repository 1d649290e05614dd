"""short raws + prior -> restored by each method -> a table and pictures."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.comparison.nodes import evaluate_methods, restore_by_methods


def create_pipeline() -> Pipeline:
    """The comparison pipeline; it takes the frames that inference selected."""
    return Pipeline([
        Node(
            restore_by_methods,
            ["raw_frames", "selected_frames", "pairs", "prior", "calibrations",
             "params:sensor", "params:inference", "params:comparison", "params:executor"],
            "restored_by_method",
            name="restore_by_methods",
        ),
        Node(
            evaluate_methods,
            ["raw_frames", "selected_frames", "pairs", "restored_by_method",
             "params:preprocessing", "params:evaluation", "params:comparison"],
            ["method_table", "method_pictures"],
            name="evaluate_methods",
        ),
    ])  # fmt: skip
