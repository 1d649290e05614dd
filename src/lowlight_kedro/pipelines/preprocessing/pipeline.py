"""raw frames -> pairs by scene -> linear RGB tiles -> metadata and index."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.preprocessing.nodes import cut_tiles, describe_tiles, index_frames, pair_frames


def create_pipeline() -> Pipeline:
    """The preprocessing pipeline."""
    return Pipeline([
        Node(index_frames, ["raw_frames", "params:preprocessing"], ["frames", "unreadable_frames"], name="index_frames"),
        Node(pair_frames, "frames", ["pairs", "unpaired_frames"], name="pair_frames"),
        Node(
            cut_tiles, ["raw_frames", "frames", "pairs", "params:preprocessing", "params:executor"], "frame_tiles",
            name="cut_tiles",
        ),
        Node(
            describe_tiles,
            ["frame_tiles", "frames", "pairs", "unreadable_frames", "unpaired_frames", "params:preprocessing"],
            ["tile_metadata", "tile_index", "preprocessing_report"],
            name="describe_tiles",
        ),
    ])  # fmt: skip
