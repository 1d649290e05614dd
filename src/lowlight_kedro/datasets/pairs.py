"""The pairs of exposures."""

import pandas as pd

from lowlight_kedro.datasets.atomic import AtomicCSVDataset
from lowlight_kedro.sensor.scenes import PAIR_COLUMNS

NO_PAIRS = pd.DataFrame(columns=list(PAIR_COLUMNS))


class PairsDataset(AtomicCSVDataset):
    """The table of pairs as CSV; where it was not made yet, it loads without rows."""

    def load(self) -> pd.DataFrame:
        """The table, with the columns of `scenes.pair`."""
        return super().load() if self._exists() else NO_PAIRS.copy()
