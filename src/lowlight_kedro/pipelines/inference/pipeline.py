"""short raws + prior -> restored frames, as 16-bit TIFF and PNG, with a record of how."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.inference.nodes import index_pages, restore_frames, select_frames, show_restored
from lowlight_kedro.pipelines.preprocessing.nodes import index_frames


def create_pipeline() -> Pipeline:
    """The inference pipeline."""
    return Pipeline([
        Node(
            index_frames, ["inference_raws", "pair_lists", "params:preprocessing"], ["inference_frames", "inference_unreadable"],
            name="index_inference_frames",
        ),
        Node(select_frames, ["inference_frames", "params:inference"], "selected_frames", name="select_frames"),
        Node(
            restore_frames,
            ["inference_raws", "selected_frames", "pairs", "prior", "calibrations", "darks",
             "params:sensor", "params:inference", "params:executor"],
            "restored",
            name="restore_frames", tags="gpu",
        ),
        Node(index_pages, ["restored", "selected_frames", "params:inference"], "restored_index", name="index_pages", tags="report"),
        Node(show_restored, ["restored", "selected_frames"], "restored_sheet", name="show_restored", tags="report"),
    ])  # fmt: skip
