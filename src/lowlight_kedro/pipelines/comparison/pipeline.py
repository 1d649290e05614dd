"""short raws + prior -> restored by each method -> a table, pictures, scores and a report."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.comparison.nodes import collect_methods, evaluate_methods, restore_by_methods
from lowlight_kedro.pipelines.evaluation.nodes import report_methods
from lowlight_kedro.pipelines.evaluation.scores import summarise_scores


def create_pipeline() -> Pipeline:
    """The comparison pipeline; it takes the frames that inference selected."""
    return Pipeline([
        Node(
            restore_by_methods,
            ["raw_frames", "selected_frames", "pairs", "prior", "calibrations", "darks",
             "params:sensor", "params:inference", "params:comparison", "params:executor"],
            "restored_by_method",
            name="restore_by_methods", tags="gpu",
        ),
        Node(
            evaluate_methods,
            ["raw_frames", "selected_frames", "pairs", "restored_by_method",
             "params:preprocessing", "params:evaluation", "params:comparison"],
            ["method_metrics", "method_pictures", "method_frames"],
            name="evaluate_methods",
        ),
        Node(
            collect_methods, ["method_metrics", "selected_frames", "pairs"],
            ["method_table", "method_scores", "method_residuals"], name="collect_methods", tags="report",
        ),
        Node(summarise_scores, "method_scores", ["method_summary", "method_differences"], name="summarise_method_scores"),
        Node(
            report_methods,
            ["method_summary", "method_differences", "method_residuals", "method_scores", "method_frames", "parameters"],
            ["method_report", "method_latex"],
            name="report_methods", tags="report",
        ),
    ])  # fmt: skip
