"""Another running mean after a training, run by name: snapshots of a training -> prior."""

import logging
from collections.abc import Callable
from typing import Annotated

from kedro.pipeline import Node, Pipeline
from pydantic import Field

from lowlight_kedro.datasets.checkpoint import BEST
from lowlight_kedro.diffusion.checkpoint import Checkpoint
from lowlight_kedro.diffusion.ema import WIDEST
from lowlight_kedro.diffusion.prior import reconstruct_prior
from lowlight_kedro.pipelines.options import Options

logger = logging.getLogger(__name__)


class AveragingOptions(Options):
    """All of `params:averaging`."""

    sigma_rel: Annotated[float, Field(gt=0, le=WIDEST)]


def average_snapshots(snapshots: dict[str, Callable[[], Checkpoint | None]], options: AveragingOptions) -> Checkpoint:
    """The prior of width `options.sigma_rel`, of a run with `training.ema.name: power`; see `reconstruct_prior`.

    Raises:
        CheckpointMismatchError: snapshots of different runs, or without power-function means.
    """
    kept = [snapshot for name, read in snapshots.items() if name != BEST and (snapshot := read()) is not None]
    prior = reconstruct_prior(kept, options.sigma_rel)
    logger.info("mean of width %.3g of %d snapshots, at %.3f kimg", options.sigma_rel, len(kept), prior.description["images"] / 1000)
    return prior


def create_pipeline() -> Pipeline:
    """The averaging pipeline."""
    return Pipeline([Node(average_snapshots, ["snapshots", "params:averaging"], "prior", name="average_snapshots")])
