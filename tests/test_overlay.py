"""A hand-held exposure laid over another (benchmarks/overlay.py): shifts are found, blocks lie right, what moved is left out."""

import numpy as np
import pytest

from benchmarks.overlay import BLOCK, MARGIN, SATURATED, Block, blocks, moved

SIDE, SHIFT = 420, (2.3, -3.6)
WAVES = np.random.default_rng(0).uniform([-1.5, -1.5, 0], [1.5, 1.5, 6.3], (40, 3))  # radians a pixel, up to 0.7 of the highest frequency


def scene(by: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Light at the pixels of a frame that is moved: scene(by)[y + by_y, x + by_x] is scene()[y, x]."""
    y, x = np.mgrid[:SIDE, :SIDE] - np.reshape(by, (2, 1, 1))
    waves = sum(np.cos(fy * y + fx * x + phase) for fy, fx, phase in WAVES)
    return (0.4 + 0.03 * waves).astype(np.float32)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, list[Block]]:
    """A short frame of nine tenths of the light, the long one, both with noise, and the blocks."""
    rng = np.random.default_rng(1)
    short, long = (light + rng.normal(0, 0.01, light.shape).astype(np.float32) for light in (0.9 * scene(), scene(SHIFT)))
    return short, long, list(blocks(short, long, (2.0, -3.0)))


def test_shifts_are_found_to_a_fiftieth_of_a_pixel(pair):
    assert len(pair[2]) == 4
    for block in pair[2]:
        np.testing.assert_allclose(block.shift, SHIFT, atol=0.02)


def test_a_block_of_the_long_frame_lies_on_the_short_one_and_back():
    block = Block(100, 150, SHIFT, 0.0, np.ones((BLOCK, BLOCK), bool))
    here, there = scene(), scene(SHIFT)
    top, left = block.corner
    np.testing.assert_allclose(block.of_long(there), block.of_short(here), atol=2e-3)  # of waves of 0.03
    np.testing.assert_allclose(block.at_long(here), there[top : top + BLOCK, left : left + BLOCK], atol=2e-3)
    np.testing.assert_array_equal(block.of_short(here, 3)[3:-3, 3:-3], here[100 : 100 + BLOCK, 150 : 150 + BLOCK])


def test_the_farthest_shift_from_an_even_one_is_odd_in_both_directions():
    far = [Block(0, 0, shift, 0.0, np.ones((1, 1), bool)).from_even for shift in ((2.0, -4.0), (2.3, -3.6), (3.0, 4.0), (-1.0, 5.0))]
    np.testing.assert_allclose(far, [0, 0.5, 1, 2**0.5])


def test_what_moved_by_itself_or_is_saturated_is_left_out(pair):
    short, long, whole = pair
    first, last = whole[0], whole[-1]
    changed = long.copy()
    changed[first.top + 40 : first.top + 80, first.left + 40 : first.left + 80] *= 0.7
    changed[last.top : last.top + BLOCK, last.left : last.left + BLOCK] = SATURATED
    left = list(blocks(short, changed, (2.0, -3.0)))
    assert [(block.top, block.left) for block in left] == [(block.top, block.left) for block in whole[1:-1]]
    assert all(not changed_inside(block, changed) for block in left)


def changed_inside(block: Block, long: np.ndarray) -> bool:
    """Whether a saturated pixel counts in it."""
    top, left = block.corner
    return bool((long[top : top + BLOCK, left : left + BLOCK][block.usable] >= SATURATED).any())


def test_a_block_without_structure_keeps_the_expected_shift():
    rng = np.random.default_rng(2)
    short, long = (np.float32(0.3) + rng.normal(0, 0.01, (SIDE, SIDE)).astype(np.float32) for _ in range(2))
    for block in blocks(short, long, (2.0, -3.0)):
        assert np.hypot(*np.subtract(block.shift, (2.0, -3.0))) < 0.25


def test_a_block_that_leaves_the_image_is_refused():
    with pytest.raises(ValueError, match="leaves an image"):
        moved(scene(), MARGIN, 0, (0.0, 0.0))
