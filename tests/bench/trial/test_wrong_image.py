"""The control `wrong_image`: from which attacks it is made, and whose reconstructions each client is shown."""

import pytest
import torch

from bench.engines.run import prepare
from bench.grid.cells import Block
from bench.trial import wrong_image
from bench.trial.trial import BlockReconstruction, rows_of

FOURS = 'grid.defenses=["larger_batch(examples=4)"]'


def planned(grid_file, *overrides):
    """Clients, the number of images, and the control's cells of the small grid."""
    _, _, clients, plan = prepare(grid_file, overrides=overrides)
    return clients, plan.images, [cell for cell in plan.cells if cell.borrows is not None]


def found(released):
    """An attack on a release that found the private images exactly."""
    return BlockReconstruction(released.truth, released.labels, *3 * [torch.zeros(1)], {0: torch.zeros(1)}, None)


def test_every_attack_that_is_no_control_has_its_own(grid_file):
    _, _, controls = planned(grid_file)
    assert {cell.attack.name for cell in controls} == {wrong_image.NAME}
    assert {cell.attack.label for cell in controls} == {
        wrong_image.label("inverting_gradients(iterations=4)"), wrong_image.label("linear_layer"),
    }  # fmt: skip
    assert wrong_image.label("linear_layer") == "wrong_image(of='linear_layer')"
    assert all(cell.control and not cell.borrows.control and not cell.adapts for cell in controls)
    assert all(cell.client_identity == cell.borrows.client_identity for cell in controls)


def test_the_wrong_client_s_reconstructions_are_another_trial_s_each(grid_file):
    clients, images, [control, *_] = planned(grid_file, FOURS, "grid.images=8")
    [block] = control.blocks(images)
    own, dataset = clients.release(block), clients.dataset(control.setting)
    assert wrong_image.source(block, images) == Block(control.borrows, 0, 8)
    moved = wrong_image.reconstructions(block, found(own))
    assert torch.equal(moved.images, own.truth[[1, 0]])
    assert torch.equal(moved.labels, own.labels[[1, 0]])
    assert (moved.start, moved.found, moved.at_truth, moved.trace) == (None, None, None, {})
    rows, _ = rows_of(block, own, moved, None, dataset)
    assert max(row["psnr_db"] for row in rows) < 40


def test_a_client_that_is_alone_in_its_block_is_shown_the_last_one_of_the_block_before(grid_file):
    clients, images, [control, *_] = planned(grid_file, "grid.images=21")
    whole, last = control.blocks(images)
    assert (last.start, last.stop) == (20, 21)
    assert wrong_image.source(last, images) == Block(control.borrows, 0, 20)
    before = clients.release(whole)
    moved = wrong_image.reconstructions(last, found(before))
    assert torch.equal(moved.images, before.truth[-1:])
    assert torch.equal(moved.labels, before.labels[-1:])


@pytest.mark.parametrize(("images", "overrides"), [(1, []), (4, [FOURS])])
def test_a_single_client_has_nobody_to_borrow_from(grid_file, images, overrides):
    _, images, [control, *_] = planned(grid_file, f"grid.images={images}", *overrides)
    [block] = control.blocks(images)
    assert wrong_image.source(block, images) is None
