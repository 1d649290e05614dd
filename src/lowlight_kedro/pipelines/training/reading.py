"""What goes wrong while tiles are read, said so that it can be acted upon."""

from collections.abc import Iterator
from contextlib import contextmanager

from kedro.io import DatasetError

KEPT = "what the last snapshot saved is sound, the same command goes on from there"


class WorkerError(RuntimeError):
    """A process that reads tiles for training died."""


@contextmanager
def reading_errors() -> Iterator[None]:
    """Around the loop: torch raises a worker's death wherever the loop happens to be, in a signal handler.

    Raises:
        WorkerError: a worker of the DataLoader died. DatasetError: what a worker said of a tile, without the worker's traceback.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError(
            f"{str(error).strip()}: a process that reads tiles is gone, expected it to live as long as the run; the system kills "
            f"when memory is short: set training.loader.workers lower (0: no such processes); {KEPT}"
        ) from error
    except DatasetError as error:
        told = str(error).strip().splitlines()[-1].removeprefix("kedro.io.core.DatasetError: ")
        raise DatasetError(f"{told}; {KEPT}") from error
