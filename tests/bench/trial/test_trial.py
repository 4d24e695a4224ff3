"""The record of a block: which reconstruction belongs to which image."""

import torch

from bench.engines.run import prepare
from bench.trial.trial import BlockReconstruction, rows_of


def attacked(images, labels):
    """An attack that found these images and labels and has no objective."""
    return BlockReconstruction(images, labels, None, None, None, {}, None)


def released(grid_file):
    overrides = ['grid.defenses=["larger_batch(examples=4)"]', "grid.images=8"]
    _, _, clients, plan = prepare(grid_file, overrides=overrides)
    block = plan.cells[0].blocks(plan.images)[0]
    return block, clients.release(block), clients.dataset(block.cell.setting)


def test_the_stored_position_is_that_of_the_image_s_own_reconstruction(grid_file):
    """The guesses stand in a cycle of three, so that the inverse order would be another one."""
    block, own, dataset = released(grid_file)
    found = attacked(own.truth[:, [1, 2, 0, 3]], own.labels)
    rows, _ = rows_of(block, own, found, None, dataset)
    assert [row["image"] for row in rows] == list(range(8))
    for row in rows:
        trial, slot = row["position"]
        assert torch.equal(found.images[trial, slot], dataset.pixels([row["image"]])[0])
        assert row["psnr_db"] == 100
        assert row["true_label"] == int(dataset.labels[row["image"]])
