"""Figures on disk; apart from other files, for matplotlib is slow to import."""

from kedro_datasets.matplotlib import MatplotlibDataset

from lowlight_kedro.datasets.atomic import AtomicSave


class AtomicFigureDataset(AtomicSave, MatplotlibDataset):
    """kedro-datasets' MatplotlibDataset (one figure), written atomically."""
