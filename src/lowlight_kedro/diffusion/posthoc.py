"""The running mean of any width after a run: from snapshots that hold power-function means."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from lowlight_kedro.diffusion.checkpoint import Checkpoint, CheckpointMismatchError, identity, weights_of
from lowlight_kedro.diffusion.ema import POWER, reconstruction
from lowlight_kedro.diffusion.snapshots import snapshot_of


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
    shares = reconstruction(times, widths, times[-1], sigma_rel).tolist()
    tensors = {
        name: sum(share * part[name].double() for share, part in zip(shares, weights, strict=True)).to(tensor.dtype)
        for name, tensor in weights_of(priors[-1]).items()
    }
    told = {"images": priors[-1].description["images"], "averages": [f"{POWER}{sigma_rel}"]}
    return Checkpoint(tensors, identity(priors[-1].description) | told)
