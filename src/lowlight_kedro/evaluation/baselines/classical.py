"""Non-local means and BM3D."""

import numpy as np
from numpy.typing import NDArray


def nlm(planes: NDArray, *, colour: bool) -> NDArray:
    """Non-local means (Buades et al. 2005) by scikit-image: patches of 5 pixels, reach 8, strength 0.7 sigma."""
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 8, "h": 0.7, "sigma": 1.0, "fast_mode": True}
    if colour:
        return np.moveaxis(denoise_nl_means(np.moveaxis(planes, 0, -1), channel_axis=-1, **options), -1, 0)
    return np.stack([denoise_nl_means(plane, **options) for plane in planes])


def bm3d(planes: NDArray, *, colour: bool) -> NDArray:
    """BM3D (Dabov et al. 2007) by its authors' package `bm3d`, free for non-commercial use; colour in opponent space.

    Raises:
        ImportError: the package is missing.
    """
    try:
        from bm3d import bm3d as filtered
        from bm3d import bm3d_rgb as filtered_colour
    except ImportError as error:
        raise ImportError("the baseline bm3d needs its package: pip install lowlight-kedro[baselines]") from error
    span = max(float(planes.max()), 1.0)  # the package was tuned for values up to 1
    if colour:
        return np.moveaxis(filtered_colour(np.moveaxis(planes, 0, -1) / span, 1 / span), -1, 0) * span
    return np.stack([filtered(plane / span, 1 / span) for plane in planes]) * span
