"""raw frames -> noise of each set of flats, pair and image -> calibrations per camera, table and figures; and maps of darks."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.calibration.nodes import collect_calibrations, collect_darks, measure_darks, measure_noise, plot_calibrations
from lowlight_kedro.pipelines.preprocessing.pairing import index_frames, pair_frames


def create_pipeline() -> Pipeline:
    """The calibration pipeline."""
    return Pipeline([
        Node(
            index_frames, ["raw_frames", "pair_lists", "params:preprocessing"], ["calibration_frames", "calibration_unreadable"],
            name="index_calibration_frames",
        ),
        Node(
            pair_frames, ["calibration_frames", "params:preprocessing"], ["calibration_pairs", "calibration_unpaired"],
            name="pair_calibration_frames",
        ),
        Node(
            measure_noise,
            ["raw_frames", "calibration_frames", "calibration_pairs", "params:preprocessing", "params:calibration", "params:executor"],
            "noise_measurements",
            name="measure_noise",
        ),
        Node(
            collect_calibrations, ["noise_measurements", "calibration_unreadable", "calibration_unpaired"],
            ["calibrations", "calibration_table", "calibration_report"], name="collect_calibrations",
        ),
        Node(measure_darks, ["raw_frames", "calibration_frames", "params:executor"], "dark_measurements", name="measure_darks"),
        Node(collect_darks, "dark_measurements", "darks", name="collect_darks"),
        Node(plot_calibrations, "calibrations", "calibration_figures", name="plot_calibrations", tags="report"),
    ])  # fmt: skip
