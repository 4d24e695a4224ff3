"""Other images in the place of a board's: none of its attacked ones come first, and half of the public ones move."""

import torch

from bench.data.bundled import digits
from bench.data.dataset import digest_of
from bench.data.redrawn import moved, redrawn


def test_no_image_of_the_board_is_attacked_while_there_are_others():
    own = digits()
    found = redrawn(own, 100, seed=1)
    first, there = found.pixels(range(260)), own.pixels(range(100, 360))
    assert not torch.equal(first, there)
    key = lambda images: sorted(digest_of(image) for image in images)
    assert key(first) == key(there)
    assert key(found.pixels(range(360))) == key(own.pixels(range(360)))


def test_labels_go_with_their_images():
    own = digits()
    known = {digest_of(image): int(label) for image, label in zip(own.pixels(range(360)), own.labels, strict=True)}
    found = redrawn(own, 100, seed=1)
    assert [known[digest_of(image)] for image in found.pixels(range(360))] == found.labels.tolist()


def test_half_of_the_training_images_are_mirrored_or_moved_and_all_are_shuffled():
    own = digits()
    before, after = own.training(), redrawn(own, 100, seed=1).training()
    assert before is not None
    assert after is not None
    known = {digest_of(image) for image in before[0]}
    assert 0.45 < sum(digest_of(image) in known for image in after[0]) / len(known) < 0.55
    assert torch.equal(before[1].bincount(), after[1].bincount())
    assert not torch.equal(before[1], after[1])


def test_the_seed_alone_decides_what_is_drawn():
    first, again, other = (redrawn(digits(), 100, seed) for seed in (1, 1, 2))
    assert digest_of(*(first.training() or ())) == digest_of(*(again.training() or ()))
    assert torch.equal(first.labels, again.labels)
    assert digest_of(*(first.training() or ())) != digest_of(*(other.training() or ()))


def test_an_image_moves_by_one_pixel_or_is_mirrored():
    image = torch.arange(9, dtype=torch.uint8).view(1, 3, 3)
    ways = {
        tuple(own.flatten().tolist()) for own in moved(image.expand(400, 1, 3, 3), torch.Generator().manual_seed(0))
    }
    assert ways == {
        (0, 1, 2, 3, 4, 5, 6, 7, 8),
        (2, 1, 0, 5, 4, 3, 8, 7, 6),
        (0, 1, 2, 0, 1, 2, 3, 4, 5),
        (3, 4, 5, 6, 7, 8, 6, 7, 8),
        (0, 0, 1, 3, 3, 4, 6, 6, 7),
        (1, 2, 2, 4, 5, 5, 7, 8, 8),
    }
