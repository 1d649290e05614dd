"""photographs -> linear camera RGB tiles -> metadata and index, as preprocessing makes them of raws."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.photographs.nodes import cut_photographs, describe_photographs


def create_pipeline() -> Pipeline:
    """The photographs pipeline."""
    return Pipeline([
        Node(cut_photographs, ["photographs", "params:photographs", "params:executor"], "photograph_tiles", name="cut_photographs"),
        Node(
            describe_photographs, ["photograph_tiles", "params:photographs"],
            ["tiles", "tile_index", "preprocessing_report"], name="describe_photographs",
        ),
    ])  # fmt: skip
