"""metadata + folder of .pt -> stacks -> metadata of the stacks and a report."""

from kedro.pipeline import Node, Pipeline

from lowlight_kedro.pipelines.import_tiles.nodes import describe_import, import_stacks


def create_pipeline() -> Pipeline:
    """The import_tiles pipeline."""
    return Pipeline([
        Node(
            import_stacks, ["import_metadata", "import_files", "params:import_tiles", "params:executor"], "imported_tiles",
            name="import_stacks",
        ),
        Node(
            describe_import, ["import_metadata", "imported_tiles", "params:import_tiles"], ["tiles", "import_report"],
            name="describe_import",
        ),
    ])  # fmt: skip
