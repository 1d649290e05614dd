"""raw frames -> pairs by scene -> checked pairs; linear RGB tiles -> metadata and index."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.preprocessing.nodes import accept_pairs, check_pairs, cut_tiles, describe_tiles, index_frames, pair_frames


def create_pipeline() -> Pipeline:
    """The preprocessing pipeline."""
    return Pipeline([
        Node(
            index_frames, ["raw_frames", "pair_lists", "params:preprocessing"], ["frames", "unreadable_frames"],
            name="index_frames",
        ),
        Node(pair_frames, ["frames", "params:preprocessing"], ["candidate_pairs", "unmatched_frames"], name="pair_frames"),
        Node(
            check_pairs, ["raw_frames", "candidate_pairs", "params:preprocessing", "params:executor"], "pair_checks",
            name="check_pairs",
        ),
        Node(
            accept_pairs, ["frames", "candidate_pairs", "pair_checks", "unmatched_frames", "params:preprocessing"],
            ["pairs", "unpaired_frames"], name="accept_pairs",
        ),
        Node(
            cut_tiles, ["raw_frames", "frames", "pairs", "params:preprocessing", "params:executor"], "frame_tiles",
            name="cut_tiles",
        ),
        Node(
            describe_tiles,
            ["frame_tiles", "frames", "pairs", "unreadable_frames", "unpaired_frames", "params:preprocessing"],
            ["tiles", "tile_index", "preprocessing_report"],
            name="describe_tiles",
        ),
    ])  # fmt: skip
