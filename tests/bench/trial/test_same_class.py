"""The control `same_class`: for which attacks it is planned, whom they are shown, and what its rows say."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Generator

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from bench.engines.blocks import SameClassWork
from bench.engines.local import LocalEngine
from bench.engines.run import prepare, run
from bench.engines.work import Tools
from bench.grid.cells import HELD_OUT_CLIENTS
from bench.grid.config import from_toml
from bench.grid.sections import Engine
from bench.plan.groups import Group
from bench.registry.registry import Registry
from bench.store.store import Store
from bench.trial.held_out import counterparts
from bench.trial.metrics import assign, from_uint8, psnr, ssim
from bench.trial.same_class import SAME_CLASS, same_class_label
from bench.trial.trial import BlockReconstruction, rows_of_same_class

GRID = """
name = "same-class"
[grid]
dataset = "{dataset}"
models = [{{ name = "mlp", hidden = [4] }}]
images = 4
attacks = {attacks}
defenses = {defenses}
{more}
[grid.threat]
public = {public}
defense_known = [true]
{threat}
[engine]
threads = 1
execution = "eager"
"""
FAST = '["linear_layer", "posterior_mean", "prior_only(iterations=1)"]'
WATCH = SimpleNamespace(training=lambda *_: None, progress=lambda *_: None)


def config(public="[false, true]", threat="", more="", **changes):
    told = {"dataset": "digits", "attacks": '["posterior_mean", "linear_layer"]', "defenses": '["none"]'}
    return from_toml(GRID.format(**{**told, **changes}, public=public, threat=threat, more=more), Registry())


def planned(*args, **changes):
    """Clients and plan of the grid."""
    _, _, clients, plan = prepare(config(*args, **changes))
    return clients, plan


def controls(plan):
    return [cell for cell in plan.cells if cell.attack.name == SAME_CLASS]


def test_every_attack_of_a_question_has_its_own_where_one_of_them_holds_public_images():
    _, plan = planned()
    assert {(cell.attack.label, cell.threat.public, cell.skip is None) for cell in controls(plan)} == {
        (same_class_label("posterior_mean"), True, True),
        (same_class_label("posterior_mean"), False, False),
        (same_class_label("linear_layer"), False, True),
    }
    assert all(cell.control and cell.repeats.threat == cell.threat for cell in controls(plan))
    assert all(cell.client_identity == cell.repeats.client_identity for cell in controls(plan))


def test_no_attack_has_one_where_none_of_its_question_holds_public_images():
    assert controls(planned("[false]", attacks='["linear_layer"]')[1]) == []
    # Floors alone hold images here: `linear_layer` learns nothing from them and is not run again beside them.
    assert controls(planned("[false, true]", attacks='["linear_layer"]')[1]) == []
    assert controls(planned(more="controls = false")[1]) == []


def test_an_attack_on_labels_has_none_as_no_floor_judges_it():
    _, plan = planned(attacks='["posterior_mean", "label_rule"]')
    assert {cell.attacked_by.name for cell in controls(plan)} == {"posterior_mean"}


def test_a_dataset_without_held_out_images_has_none_and_the_plan_says_so():
    _, plan = planned("[true]", dataset="mnist-samples", attacks='["linear_layer"]')
    assert controls(plan) == []
    assert "same_class is left out: no public images are left to hold out" in plan.notes


def test_its_place_is_behind_all_others_and_its_id_that_of_the_public_set():
    _, few = planned(more="public = 40")
    _, many = planned(more="public = 50")
    assert not {cell.id for cell in controls(few)} & {cell.id for cell in controls(many)}
    orders = {cell.attack.name: cell.attack_order for cell in few.cells}
    assert orders[SAME_CLASS] == max(orders.values())


def test_counterparts_have_the_attacked_image_s_label_and_none_is_used_twice_before_all_are():
    held_out = torch.tensor([0, 1] * 10)
    labels = torch.tensor([[0, 1], [1, 1]])
    first = counterparts(labels, torch.tensor([], dtype=torch.long), held_out, Generator().manual_seed(0))
    assert first.shape == (2, HELD_OUT_CLIENTS, 2)
    assert torch.equal(held_out[first], labels[:, None].expand(-1, HELD_OUT_CLIENTS, -1))
    ones = first[held_out[first] == 1]
    assert len(ones) == 12
    assert len(set(ones.tolist())) == 10
    zeros = first[held_out[first] == 0]
    assert len(set(zeros.tolist())) == 4
    # The next block goes on where this one ended.
    more = counterparts(torch.tensor([[0]]), labels.flatten(), held_out, Generator().manual_seed(0))
    assert not set(more.flatten().tolist()) & set(zeros.tolist())


def test_a_client_holds_no_image_twice_where_its_label_has_enough():
    labels = torch.tensor([[3, 3, 3]] * 5)
    found = counterparts(labels, torch.tensor([3]), torch.full((3,), 3), Generator().manual_seed(1))
    assert all(len(set(client)) == 3 for trial in found.tolist() for client in trial)


def test_a_label_without_held_out_images_skips_the_control_with_that_reason():
    with pytest.raises(UnsupportedPair, match="no held-out public image of class 2"):
        counterparts(torch.tensor([[2]]), torch.tensor([1]), torch.tensor([0, 1]), Generator())


@pytest.mark.parametrize("defense", ["none", "larger_batch(examples=2)", "local_epochs(epochs=2) | dp_sgd"])
def test_held_out_clients_have_the_labels_of_the_attacked_one_and_run_the_same_code(defense):
    clients, plan = planned(defenses=f'["{defense}"]')
    [block] = next(cell for cell in controls(plan) if cell.skip is None).blocks(4)
    own, held_out = clients.release(block), clients.release_of_held_out(block)
    images, b = clients.held_out(block.cell.setting), own.truth.shape[1]
    assert torch.equal(held_out.labels, own.labels.repeat_interleave(HELD_OUT_CLIENTS, 0))
    assert torch.equal(held_out.truth, images.pixels[held_out.image_ids])
    assert held_out.truth.shape == (HELD_OUT_CLIENTS * len(own.truth), b, 1, 8, 8)
    assert held_out.task.schedule == own.task.schedule
    # A private client with one of these batches would have sent the same, to the last bit.
    alike = clients._sent(block.cell, held_out.truth[3:4], held_out.labels[3:4], held_out.image_ids[3:4], None)
    assert all(torch.equal(alike.updates[name][0], u[3]) for name, u in held_out.updates.items())


@dataclass(frozen=True)
class Recorder(Attack):
    """Shows grey, and keeps what it was given."""

    needs_public = True
    seen: ClassVar[list] = []

    def reconstruct(self, observation, seeds):
        self.seen.append((observation, seeds))
        images = torch.full((observation.trials, observation.images, 1, 8, 8), 0.5)
        return Reconstruction(images, torch.zeros(observation.trials, observation.images, dtype=torch.long))


def test_all_held_out_clients_of_a_block_are_attacked_at_once_with_what_the_attack_is_granted(monkeypatch):
    clients, plan = planned("[true]", threat='labels = "recovered"\nbatch_norm = "unknown"')
    control = next(cell for cell in controls(plan) if cell.attacked_by.name == "posterior_mean")
    [block] = control.blocks(4)
    registry = SimpleNamespace(build=lambda kind, spec: Recorder())
    Recorder.seen.clear()
    tools = Tools(registry, clients, Engine(), torch.device("cpu"))
    [outcome] = SameClassWork(Group([block])).outcomes(tools, lambda *_: None, WATCH)
    assert outcome.result["status"] == "ok", outcome.result
    [(seen, seeds)] = Recorder.seen
    own = clients.observed(control.repeats, Recorder(), [clients.release(block)])
    assert seen.trials == len(set(seeds)) == 4 * HELD_OUT_CLIENTS
    assert (seen.threat, seen.scale, seen.class_means) == (own.threat, own.scale, None)
    assert seen.labels is None  # They decide who is held out, and still the attack has to guess them.
    assert seen.public.digest == own.public.digest
    assert type(seen.black_box) is type(own.black_box)
    assert seen.lessons is own.lessons
    assert seen.defense is not None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("run")
    run(config(attacks=FAST), output=folder)
    return folder


def test_rows_are_means_over_the_held_out_clients_after_the_attack_s_own_matching():
    rng = Generator().manual_seed(0)
    draw = lambda *shape: torch.randint(0, 256, (*shape, 1, 16, 16), dtype=torch.uint8, generator=rng)
    clients, plan = planned(defenses='["larger_batch(examples=2)"]')
    [block] = next(cell for cell in controls(plan) if cell.skip is None).blocks(4)
    release, held_out = clients.release(block), clients.release_of_held_out(block)
    release, held_out = replace(release, truth=draw(2, 2)), replace(held_out, truth=draw(8, 2))
    found = BlockReconstruction(
        draw(2, HELD_OUT_CLIENTS, 2), torch.zeros(2, HELD_OUT_CLIENTS, 2).long(), None, None, None, {}, None
    )
    dataset = SimpleNamespace(pool=lambda: [0, 1], pixels=lambda _: draw(2))
    rows, _ = rows_of_same_class(block, release, held_out, found, dataset)
    assert [row["image"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        trial, positions = row["position"]
        slot = release.image_ids[trial].tolist().index(row["image"])
        scores, own = [], []
        for client in range(HELD_OUT_CLIENTS):
            answer, hidden = found.images[trial, client], held_out.truth[HELD_OUT_CLIENTS * trial + client]
            place = int(assign(answer, release.truth[trial])[slot])
            assert place == positions[client]
            pair = from_uint8(answer[place][None]), from_uint8(release.truth[trial, slot][None])
            scores.append((float(ssim(*pair)), float(psnr(*pair))))
            pair = from_uint8(answer[assign(answer, hidden)[slot]][None]), from_uint8(hidden[slot][None])
            own.append((float(ssim(*pair)), float(psnr(*pair))))
        assert (row["ssim"], row["psnr_db"]) == pytest.approx(tuple(np.mean(scores, 0)), rel=1e-12)
        assert (row["held_out_ssim"], row["held_out_psnr_db"]) == pytest.approx(tuple(np.mean(own, 0)), rel=1e-12)


def test_a_run_tells_the_class_from_the_client_and_that_the_attack_works_at_all(finished):
    frame = Store(finished).frame()
    rows = frame[frame["attack"] == same_class_label("linear_layer")]
    attack = frame[frame["attack"] == "linear_layer"]
    assert list(rows["status"]) == ["ok"] * 4
    assert rows["psnr_db"].mean() < 20 < attack["psnr_db"].mean()
    assert rows["held_out_psnr_db"].mean() == pytest.approx(attack["psnr_db"].mean(), abs=5)
    assert rows["update_norm"].tolist() == attack["update_norm"].tolist()
    assert frame.loc[frame["attack_name"] != SAME_CLASS, "held_out_psnr_db"].isna().all()


def test_stored_reconstructions_are_scored_again_to_the_same_rows(finished):
    configured, registry, clients, plan = prepare(config(attacks=FAST))
    store, before = Store(finished), Store(finished).frame()
    block = next(cell for cell in controls(plan) if cell.skip is None).blocks(4)[0]
    assert store.arrays(block.id)["images"].shape == (4, HELD_OUT_CLIENTS, 1, 1, 8, 8)
    record = store.record(block.id)
    images = [{**row, "psnr_db": 0.0, "held_out_psnr_db": 0.0} for row in record["images"]]
    store.write_record(block.id, {**record, "images": images, "scoring": "of another time"})
    engine = LocalEngine(plan, registry, clients, store, configured.engine, torch.device("cpu"))
    assert engine.score_again() == 1
    after = store.frame()
    for column in ("psnr_db", "held_out_psnr_db", "identified"):
        np.testing.assert_array_equal(after[column].to_numpy(), before[column].to_numpy())


def test_results_without_it_have_no_columns_of_it(tmp_path):
    frame = run(
        config("[false]", attacks='["linear_layer", "prior_only(iterations=1)"]'), output=tmp_path / "run"
    ).frame()
    assert not [name for name in frame if name.startswith("held_out")]
