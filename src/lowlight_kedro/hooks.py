"""What a run shows at its end."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

COLUMNS = {
    "frame": "frame",
    "scaled_psnr_srgb": "scaled PSNR",
    "restored_psnr_srgb": "restored PSNR",
    "scaled_ssim_srgb": "scaled SSIM",
    "restored_ssim_srgb": "restored SSIM",
    "evaluations": "evaluations",
    "seconds": "seconds",
}


def results_text(table: Any, pictures: list[str]) -> str:
    """A small table of an evaluation (a DataFrame), with the mean, and the paths of its pictures."""
    shown = table[[name for name in COLUMNS if name in table]].rename(columns=COLUMNS)
    mean = shown.mean(numeric_only=True).to_frame().T.assign(frame="mean")
    lines = type(table)(shown.to_dict("records") + mean.to_dict("records")).to_string(index=False, float_format="%.3f")
    return "\n".join(["", "sRGB, data range 1:", lines, "", "pictures:", *(f"  {path}" for path in pictures)])


class ShowResults:
    """Prints the evaluation after a run that made one."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Called by Kedro when all nodes are done."""
        if "evaluation_table" not in pipeline.all_outputs():
            return
        table = catalog.load("evaluation_table")
        pictures: Any = catalog.get("comparisons")
        folder = pictures._describe()["path"]  # noqa: SLF001 - there is no public way to a dataset's path
        print(results_text(table, [f"{folder}/{frame}.png" for frame in table["frame"]]))  # noqa: T201
