"""Priors along a training, to choose from, and the running mean of any width that is made from them afterwards (EDM2)."""

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, identity, prior_of, weights_of
from lowlight_kedro.diffusion.ema import POWER, reconstruction
from lowlight_kedro.diffusion.training import better


def snapshot_of(state: Checkpoint, best_by: str) -> Checkpoint:
    """A prior to choose from: `prior_of`, the further running means, and its row of the history.

    Args:
        state: a packed training state.
        best_by: the column of the history by which the best is chosen.
    """
    prior, images = prior_of(state), state.description["images"]
    means = state.description.get("emas", [])
    further = {name: tensor for name, tensor in state.tensors.items() if name.startswith(tuple(f"{mean}." for mean in means))}
    figures = [row for row in state.description["history"] if round(row["kimg"] * 1000) == images][-1:]
    facts = {"figures": dict(*figures), "best_by": best_by} | ({"emas": means} if means else {})
    return Checkpoint(prior.tensors | further, prior.description | facts, state.source)


def snapshot_name(images: int) -> str:
    """What the snapshot after so many images is called; names sort as the counts do."""
    return f"prior-{images / 1000:010.3f}kimg"


def is_new_best(new: Checkpoint, best: Checkpoint | None) -> bool:
    """Whether a snapshot should take the place of the best one so far.

    A best one of another run gives way. So does one with as many images or more: a run goes on from an earlier state
    where it was stopped or begun anew, and will come there again.
    """
    column = new.description["best_by"]
    value = new.description["figures"].get(column, math.nan)
    if math.isnan(value):
        return False
    if best is None or identity(best.description) != identity(new.description):
        return True
    stale = best.description["images"] >= new.description["images"]
    return stale or better(value, best.description["figures"].get(column, math.nan), column)


def _means(snapshot: Checkpoint) -> Iterator[tuple[float, float, dict[str, Tensor]]]:
    """(images, sigma_rel, weights) of the power-function means of a snapshot; the first mean is stored as `ema`."""
    names = snapshot.description.get("averages", [])
    for stored, name in zip(["ema", *names[1:]], names, strict=False):
        if name.startswith(POWER):
            yield float(snapshot.description["images"]), float(name.removeprefix(POWER)), weights_of(snapshot, stored)


def _require_one_run(snapshots: Sequence[Checkpoint]) -> None:
    first, *others = (identity(snapshot.description) for snapshot in snapshots)
    differs = sorted({key for one in others for key in first | one if one.get(key) != first.get(key)})
    if differs:
        raise CheckpointMismatchError(f"the snapshots are of different runs: they differ in {', '.join(differs)}")


def reconstruct_prior(snapshots: Sequence[Checkpoint], sigma_rel: float) -> Checkpoint:
    """A prior whose weights are the mean of width `sigma_rel` at the last of the `snapshots` (or whole states) of one run.

    Sums are formed in double precision.

    Raises:
        CheckpointMismatchError: snapshots of different runs, or none with power-function means.
    """
    priors = [snapshot_of(one, "loss") if "history" in one.description else one for one in snapshots if one.description["images"]]
    priors.sort(key=lambda one: one.description["images"])
    means = [mean for prior in priors for mean in _means(prior)]
    if not means:
        raise CheckpointMismatchError("no snapshot holds power-function means; train with training.ema.name=power")
    _require_one_run(priors)
    times, widths, weights = zip(*means, strict=True)
    fractions = reconstruction(times, widths, times[-1], sigma_rel).tolist()
    tensors = {
        name: sum(fraction * part[name].double() for fraction, part in zip(fractions, weights, strict=True)).to(tensor.dtype)
        for name, tensor in weights_of(priors[-1]).items()
    }
    facts = {"images": priors[-1].description["images"], "averages": [f"{POWER}{sigma_rel}"]}
    return Checkpoint(tensors, identity(priors[-1].description) | facts)
