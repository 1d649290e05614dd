"""Pictures to judge a restoration by eye."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray


def most_detailed(image: NDArray, side: int) -> tuple[int, int]:
    """Top and left of the square of `side` pixels, on a coarse grid, in which `image` (3, H, W) varies most."""
    rows, columns = image.shape[1:]
    places = [
        (top, left) for top in range(0, max(rows - side, 0) + 1, side // 2) for left in range(0, max(columns - side, 0) + 1, side // 2)
    ]
    return max(places, key=lambda place: float(image[:, place[0] : place[0] + side, place[1] : place[1] + side].std()))


def comparison(images: Mapping[str, NDArray], captions: Mapping[str, str], side: int = 160) -> Figure:
    """Images (3, H, W) in [0, 1] side by side by title, whole and as a crop at the last one's most detailed place."""
    truth = list(images.values())[-1]
    side = min(side, *truth.shape[1:])
    top, left = most_detailed(truth, side)
    height = 4 * truth.shape[1] / truth.shape[2]
    figure, axes = plt.subplots(2, len(images), figsize=(4 * len(images), height + 4.6), height_ratios=[height, 4], layout="constrained")
    for column, (title, image) in enumerate(images.items()):
        axes[0, column].imshow(image.transpose(1, 2, 0))
        axes[0, column].add_patch(Rectangle((left, top), side, side, fill=False, color="yellow"))
        axes[1, column].imshow(image[:, top : top + side, left : left + side].transpose(1, 2, 0), interpolation="nearest")
        axes[0, column].set_title(f"{title}\n{captions.get(title, '')}", fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    plt.close(figure)
    return figure
