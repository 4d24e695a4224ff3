"""Public images are of one half of a training set, and none of them is an attacked image or a copy of one."""

from dataclasses import replace

import pytest
import torch

from bench.data.dataset import in_memory
from bench.data.load import load_dataset
from bench.data.public import copies_of, halves, public_split, without_public
from bench.errors import ConfigurationError


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def planted(digits, image):
    """The digits with this image in the place of the third public one."""
    pixels, labels = digits.training()
    pixels = pixels.clone()
    pixels[halves(len(labels))[0][2]] = image
    return replace(digits, read_training=lambda: (pixels, labels)), int(halves(len(labels))[0][2])


def test_the_two_halves_are_disjoint_and_together_the_training_set():
    public, private = halves(101)
    assert sorted([*public.tolist(), *private.tolist()]) == list(range(101))
    assert len(public) == 50


def test_public_images_are_the_first_of_their_half_and_weights_see_the_other(digits):
    pixels, labels = digits.training()
    split = public_split(digits, 30, torch.zeros(0, 1, 8, 8, dtype=torch.uint8), explicit=False)
    chosen = halves(len(labels))[0][:30]
    assert torch.equal(split.pixels, pixels[chosen])
    assert torch.equal(split.labels, labels[chosen])
    own, own_labels = without_public(digits).training()
    assert torch.equal(own, pixels[halves(len(labels))[1]])
    assert len(own_labels) == len(labels) - len(labels) // 2


def test_more_than_there_are_gives_all_that_the_referee_does_not_hold_back(digits):
    count = len(digits.training()[1]) // 2
    split = public_split(digits, 10**6, digits.pixels(range(3)), explicit=False)
    assert len(split.labels) + split.left_out == count - count // 5


def test_held_out_images_are_a_thousand_or_a_fifth_of_a_small_half(digits):
    nothing = torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    sizes = {}
    for count in (8, 100, 11_000):
        noise = torch.randint(256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        whole = noise, torch.zeros(count, dtype=torch.long)
        own = replace(digits, read_training=lambda whole=whole: whole)
        split = public_split(own, 10_000, nothing[..., :4, :4], explicit=False)
        sizes[count] = len(split.labels), len(split.held_out_labels)
    assert sizes == {8: (4, 0), 100: (40, 10), 11_000: (4500, 1000)}


@pytest.mark.parametrize("count", [10, 10**6])
def test_held_out_images_are_of_the_public_half_and_never_among_the_granted(digits, count):
    pixels, labels = digits.training()
    half = halves(len(labels))[0]
    places = torch.arange(len(labels))
    source = replace(digits, read_training=lambda: (pixels, places))  # Labels that tell images apart.
    split = public_split(source, count, torch.zeros(0, 1, 8, 8, dtype=torch.uint8), explicit=False)
    last = half[-(len(half) // 5) :]
    assert set(split.held_out_labels.tolist()) <= set(last.tolist())
    assert not set(split.held_out_labels.tolist()) & set(split.labels.tolist())
    # The attacker holds copies of those that are missing, as it holds none of an attacked image.
    missing = torch.tensor(sorted(set(last.tolist()) - set(split.held_out_labels.tolist())), dtype=torch.long)
    assert len(missing) < 10
    assert (copies_of(pixels[missing], split.pixels) >= 0).all()
    assert (copies_of(split.held_out_pixels, split.pixels) == -1).all()


def test_no_held_out_image_is_a_copy_of_an_attacked_one(digits):
    pixels, labels = digits.training()
    attacked, last = digits.pixels(range(4)), halves(len(labels))[0][-1]
    pixels = pixels.clone()
    pixels[last] = attacked[2]
    source = replace(digits, read_training=lambda: (pixels, labels))
    split = public_split(source, 30, attacked, explicit=False)
    whole = public_split(digits, 30, attacked, explicit=False)
    assert len(split.held_out_labels) == len(whole.held_out_labels) - 1
    assert (copies_of(split.held_out_pixels, attacked) == -1).all()
    assert split.left_out == 0
    with pytest.raises(ConfigurationError, match=f"training image {int(last)} of digits is the attacked image 2"):
        public_split(source, 30, attacked, explicit=True)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: (x.float() * 0.5 + 20).to(torch.uint8)])
def test_an_attacked_image_and_a_paler_copy_of_it_are_left_out_and_counted(digits, change):
    attacked = digits.pixels(range(4))
    before = public_split(digits, 30, attacked, explicit=False)
    source, _ = planted(digits, change(attacked[1]))
    split = public_split(source, 30, attacked, explicit=False)
    assert split.left_out == before.left_out + 1
    assert (copies_of(split.pixels, attacked) == -1).all()


def test_a_named_set_with_an_attacked_image_is_refused_and_the_image_named(digits):
    attacked = digits.pixels(range(4))
    source, place = planted(digits, attacked[1])
    with pytest.raises(ConfigurationError, match=f"training image {place} of digits is the attacked image 1"):
        public_split(source, 30, attacked, explicit=True)


def test_equal_constant_images_are_copies_though_they_correlate_with_nothing():
    grey, other = torch.full((1, 1, 4, 4), 7, dtype=torch.uint8), torch.full((1, 1, 4, 4), 8, dtype=torch.uint8)
    assert copies_of(torch.cat([grey, other]), grey).tolist() == [0, -1]


def test_a_dataset_without_training_images_has_no_public_ones():
    samples = load_dataset("mnist-samples")
    assert public_split(samples, 10, samples.pixels([0]), explicit=False) is None
    assert without_public(samples) is samples
    assert in_memory(samples.pixels([0]))([0]).shape[0] == 1
