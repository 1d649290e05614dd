"""What people would use instead: denoisers for noise of standard deviation 1, behind a variance-stabilising transform."""

from lowlight_kedro.evaluation.baselines.classical import bm3d, nlm
from lowlight_kedro.evaluation.baselines.ffdnet import ffdnet
from lowlight_kedro.evaluation.baselines.stabilised import UnitDenoiser, denoise_signal

BASELINES: dict[str, UnitDenoiser] = {"nlm": nlm, "bm3d": bm3d, "ffdnet": ffdnet}

__all__ = ["BASELINES", "UnitDenoiser", "denoise_signal"]
