"""tiles -> verdicts -> report -> statistics, or stop."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.validation.nodes import check_tiles, measure_tiles, report_tiles


def create_pipeline() -> Pipeline:
    """The validation pipeline."""
    return Pipeline([
        Node(check_tiles, ["tiles", "params:validation"], ["tile_checks", "tile_problems"], name="check_tiles"),
        Node(
            report_tiles, ["tiles", "tile_checks", "tile_problems", "params:validation"], "validation_report",
            name="report_tiles",
        ),
        Node(
            measure_tiles, ["tiles", "tile_checks", "validation_report", "calibrations", "params:sensor"], "tile_statistics",
            name="measure_tiles",
        ),
    ])  # fmt: skip
