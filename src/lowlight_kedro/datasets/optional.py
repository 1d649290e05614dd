"""Tables that may not be there yet."""

import pandas as pd

from lowlight_kedro.datasets.atomic import AtomicCSVDataset


class OptionalCSVDataset(AtomicCSVDataset):
    """A CSV file that loads as an empty table where it is missing."""

    def load(self) -> pd.DataFrame:
        """The table, or an empty one."""
        return super().load() if self._exists() else pd.DataFrame()
