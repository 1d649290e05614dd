"""Whether two exposures show the same still scene: shift, signal ratio, motion. NumPy and SciPy, any colour filter array."""

from lowlight_kedro.sensor.alignment.check import PairCheck, PairLimits, check_pair, comparable_sites, in_sites
from lowlight_kedro.sensor.alignment.registration import nearest_phase_keeping

__all__ = ["PairCheck", "PairLimits", "check_pair", "comparable_sites", "in_sites", "nearest_phase_keeping"]
