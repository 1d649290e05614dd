import pytest
import torch

from lowlight_kedro.diffusion.draws import Draws, PassDraws, augment, index_batches

KINDS = {
    "uniform": lambda draws, like: draws.uniform(3, 2),
    "normal": lambda draws, like: draws.normal(5),
    "field": lambda draws, like: draws.field(like),
}


def test_every_epoch_shows_every_image_once_and_the_start_does_not_matter():
    whole = [i for batch in index_batches(7, 3, 0, 4, 28) for i in batch]
    assert [sorted(whole[k : k + 7]) for k in range(0, 28, 7)] == [list(range(7))] * 4
    assert whole[:7] != whole[7:14]
    assert [i for batch in index_batches(7, 3, 12, 4, 28) for i in batch] == whole[12:]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_draws_the_same_in_any_company(kind):
    """And other numbers than its neighbours, in another run, or in its next draw."""
    draw, like = KINDS[kind], torch.empty(6, 3, 9, 9)
    whole = Draws(0, range(10, 16))
    first, second = draw(whole, like), draw(whole, like)
    for size in (1, 2, 3):
        parts = [Draws(0, range(start, start + size)) for start in range(10, 16, size)]
        assert torch.equal(torch.cat([draw(part, like[:size]) for part in parts]), first)
        assert torch.equal(torch.cat([draw(part, like[:size]) for part in parts]), second)
    values = torch.cat([first, second, draw(Draws(1, range(10, 16)), like)]).flatten(1)
    assert len({tuple(row.tolist()) for row in values}) == 18


def test_few_numbers_and_fields_do_not_shift_one_another():
    """So a corruption that draws one level more has the same noise, and a GPU, which draws its own fields, the same levels."""
    like = torch.empty(2, 3, 4, 4)
    one, other = Draws(0, range(2)), Draws(0, range(2))
    other.uniform(7)
    field = one.field(like)
    assert torch.equal(field, other.field(like))
    assert torch.equal(one.uniform(7), Draws(0, range(2)).uniform(7))


def test_a_pass_that_draws_at_once_does_it_again_and_as_no_other():
    like = torch.empty(6, 3, 9, 9)
    for draw in KINDS.values():
        first, again = draw(PassDraws(0, range(10, 16)), like), draw(PassDraws(0, range(10, 16)), like)
        assert torch.equal(first, again)
        others = [draw(PassDraws(seed, range(start, start + 6)), like) for seed, start in ((0, 16), (1, 10))]
        assert len({tuple(row.tolist()) for row in torch.cat([first, *others]).flatten(1)}) == 18


@pytest.mark.parametrize("kind", [Draws, PassDraws])
def test_draws_have_the_distributions_that_they_say(kind):
    draws = kind(0, range(500))
    for values, mean, variance in (
        (draws.uniform(400), 0.5, 1 / 12), (draws.normal(400), 0, 1), (draws.field(torch.empty(500, 4, 10, 10)), 0, 1)
    ):  # fmt: skip
        assert abs(values.mean() - mean) < 5 * (variance / values.numel()) ** 0.5
        assert abs(values.var() / variance - 1) < 5 * (2 / values.numel()) ** 0.5
    assert draws.field(torch.empty(500, 2, dtype=torch.float64)).dtype == torch.float64


def test_augmentation_only_moves_pixels():
    image = torch.arange(2 * 3 * 6 * 6.0).reshape(2, 3, 6, 6)
    seen = set()
    for count in range(0, 400, 2):
        out = augment(image, None, Draws(0, range(count, count + 2)))
        assert torch.equal(out.flatten(2).sort(-1).values, image.flatten(2).sort(-1).values)
        seen.add(tuple(out[0, 0].flatten().tolist()))
    assert len(seen) == 8
    with pytest.raises(ValueError, match="crop must be at most the tile size 6, got crop=9"):
        augment(image, 9, Draws(0, range(2)))


def test_every_place_of_a_crop_is_as_likely():
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(3000, 1, 4, 4)
    corners = augment(image, 2, Draws(0, range(3000))).amin(dim=(1, 2, 3)).long()
    fractions = corners.bincount(minlength=16).reshape(4, 4)[:3, :3] / 3000
    assert ((fractions - 1 / 9).abs() < 5 * (1 / 9 * 8 / 9 / 3000) ** 0.5).all(), fractions


@pytest.mark.parametrize("crop", [None, 3])
def test_augmentation_moves_16_bit_images_like_float_ones(crop):
    image = torch.arange(60_000, 60_000 + 4 * 3 * 6 * 6).reshape(4, 3, 6, 6)
    small, large = (augment(image.to(kind), crop, Draws(0, range(4))) for kind in (torch.uint16, torch.float32))
    assert (small.dtype, large.dtype) == (torch.uint16, torch.float32)
    assert torch.equal(small.float(), large)
