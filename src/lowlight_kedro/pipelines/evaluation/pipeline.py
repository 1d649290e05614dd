"""restored + long exposures -> figures per frame, pictures, summary, report."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.evaluation.nodes import (
    collect_scores,
    evaluate_frames,
    plot_evaluation,
    plot_uncertainty,
    report_evaluation,
    summarise,
)
from lowlight_kedro.pipelines.evaluation.scores import summarise_scores


def create_pipeline() -> Pipeline:
    """The evaluation pipeline."""
    return Pipeline([
        Node(
            evaluate_frames,
            ["raw_frames", "selected_frames", "pairs", "restored",
             "params:preprocessing", "params:evaluation"],
            ["frame_metrics", "comparisons", "report_frames"],
            name="evaluate_frames",
        ),
        Node(
            summarise, ["frame_metrics", "selected_frames", "pairs", "restored"],
            ["evaluation_table", "evaluation_summary"], name="summarise", tags="report",
        ),
        Node(
            collect_scores, ["frame_metrics", "selected_frames", "pairs", "restored"],
            ["scores", "residuals", "uncertainty"], name="collect_scores",
        ),
        Node(summarise_scores, "scores", ["score_summary", "score_differences"], name="summarise_scores"),
        Node(
            report_evaluation,
            ["score_summary", "score_differences", "residuals", "uncertainty", "scores", "report_frames", "parameters"],
            ["report", "report_latex"], name="report_evaluation", tags="report",
        ),
        Node(plot_uncertainty, "uncertainty", "uncertainty_figure", name="plot_uncertainty", tags="report"),
        Node(plot_evaluation, "evaluation_table", "evaluation_figure", name="plot_evaluation", tags="report"),
    ])  # fmt: skip
