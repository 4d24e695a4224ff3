"""The client's mode as an axis: which cells it makes, and under which names and ids."""

import torch

from bench.engines.run import prepare, run
from defenses.task import Batch

MODES = 'grid.client.mode=["eval", "train"]'
RESNET = 'grid.models=["resnet20(width=2)"]'
ONE = ["grid.images=2", 'grid.defenses=["none"]', 'grid.attacks=["inverting_gradients(iterations=2)"]']


def planned(grid_file, *overrides):
    return prepare(grid_file, overrides=list(overrides))[3]


def test_a_cell_of_a_client_in_eval_mode_keeps_the_id_that_it_always_had(grid_file):
    first = planned(grid_file).cells[0]
    assert "mode" not in first.setting.identity
    assert first.id == "863624fdc64b9336"


def test_both_modes_are_cells_of_their_own_under_labels_that_tell_them_apart(grid_file):
    plan = planned(grid_file, MODES, RESNET, *ONE)
    labels = dict.fromkeys(cell.setting.model_label for cell in plan.cells)
    assert list(labels) == ["resnet20(width=2)", "resnet20(width=2), client in train mode"]
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    alone = planned(grid_file, RESNET, *ONE)
    assert {cell.id for cell in alone.cells} < {cell.id for cell in plan.cells}


def test_client_and_server_compute_in_the_mode_that_is_asked_for(grid_file):
    _, _, clients, plan = prepare(grid_file, overrides=[MODES, RESNET, *ONE])
    cells = {cell.setting.mode: cell for cell in plan.cells}
    in_eval, in_train = (clients.release(cells[mode].blocks(2)[0]) for mode in ("eval", "train"))
    assert in_eval.digest != in_train.digest
    images, labels = in_train.truth[0].float() / 255, in_train.labels[0]
    sent = {name: update[0] for name, update in in_train.updates.items()}
    server = in_train.task.gradient(in_train.params, Batch(images, labels))
    assert all(torch.equal(sent[name], server[name]) for name in sent)


def test_a_model_without_batch_norm_is_planned_once_and_a_note_says_why(grid_file):
    for modes in (MODES, "grid.client.mode=train"):
        plan = planned(grid_file, modes)
        assert [cell.id for cell in plan.cells] == [cell.id for cell in planned(grid_file).cells]
        assert [n for n in plan.notes if "has no batch norm: in train mode its client does the same" in n]


def test_dp_sgd_replaces_batch_norm_and_with_it_the_mode(grid_file):
    plan = planned(grid_file, MODES, RESNET, *ONE, 'grid.defenses=["none", "dp_sgd(clip_norm=1.0)"]')
    assert {cell.setting.mode for cell in plan.cells} == {"eval"}


def test_attacks_with_and_without_priors_on_batch_norm_finish_on_clients_in_train_mode(grid_file, tmp_path):
    attacks = '["inverting_gradients(iterations=2)", "see_through_gradients(iterations=2, group_size=2)"]'
    threat = 'grid.threat.batch_norm=["running", "batch"]'
    asked = [RESNET, *ONE[:2], f"grid.attacks={attacks}", threat, "grid.client.mode=train", "grid.controls=false"]
    frame = run(str(grid_file), output=tmp_path / "run", overrides=asked).frame()
    assert set(frame["status"]) == {"ok"}
    assert set(frame["model"]) == {"resnet20(width=2), client in train mode"}
    assert (frame["update_norm"] > 0).all()
