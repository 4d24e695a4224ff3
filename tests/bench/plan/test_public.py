"""Public images join a grid as knowledge: who needs them gets them, nobody else does, and ids without them stay."""

from pathlib import Path

import pytest
import torch

from attacks.threat import ThreatModel
from bench.conformance.suite import conformance
from bench.engines.run import prepare, run
from bench.errors import ConfigurationError
from bench.grid.config import from_toml
from bench.registry.registry import Registry
from bench.trial.clients import observe

PLUGIN = Path(__file__).parents[2] / "plugins" / "nearest_public.py"
GRID = """
name = "public"
[grid]
dataset = {dataset}
models = [{{ name = "mlp", hidden = [8] }}]
weights = {weights}
images = 4
attacks = {attacks}
defenses = ["none"]
threat = {{ public = {public} }}
{more}
[engine]
threads = 1
execution = "eager"
"""


def planned(public="[false, true]", attacks='["nearest_public", "linear_layer"]', more="", **changes):
    told = {"dataset": '"digits"', "weights": '["untrained"]', **changes}
    registry = Registry([PLUGIN])
    config = from_toml(GRID.format(public=public, attacks=attacks, more=more, **told), registry)
    _, _, clients, plan = prepare(config, registry)
    return clients, plan


def test_an_attack_that_needs_public_images_runs_with_them_and_is_skipped_with_the_reason_without():
    _, plan = planned()
    own = {cell.threat.public: cell.skip for cell in plan.cells if cell.attack.name == "nearest_public"}
    assert own[True] is None
    assert own[False] == "nearest_public needs public images: threat.public = [false, true] grants them"


def test_attacks_that_learn_nothing_from_public_images_are_not_run_again_beside_them():
    _, plan = planned()
    assert {cell.threat.public for cell in plan.cells if cell.attack.name in ("linear_layer", "prior_only")} == {False}
    _, plan = planned("true")
    assert {cell.threat.public for cell in plan.cells} == {True}
    assert "linear_layer" in {cell.attack.name for cell in plan.cells}


def test_ids_without_public_images_are_those_of_a_grid_that_knows_nothing_of_them():
    _, plan = planned()
    _, plain = planned("false")
    own = [cell for cell in plan.cells if not cell.threat.public and cell.repeats is None]
    assert [(cell.id, cell.attack_order) for cell in own] == [(cell.id, cell.attack_order) for cell in plain.cells]
    assert "public" not in plain.config.resolved()["grid"]
    assert "public" not in plain.config.resolved()["grid"]["threat"]


def test_the_number_of_public_images_is_part_of_the_ids_of_who_holds_them():
    few, many = (planned(more=f"public = {count}")[1] for count in (5, 50))
    held = [{cell.id for cell in plan.cells if cell.threat.public} for plan in (few, many)]
    assert not held[0] & held[1]
    assert {cell.public.count for cell in few.cells if cell.threat.public} == {5}


def test_a_dataset_without_a_training_half_skips_who_needs_it_and_is_an_error_where_nothing_is_left():
    _, plan = planned("true", dataset='"mnist-samples"')
    own = [cell for cell in plan.cells if cell.attack.name == "nearest_public"]
    assert all("no training half: name a set in grid.public" in str(cell.skip) for cell in own)
    with pytest.raises(ConfigurationError, match="no attack of the grid can run: nearest_public needs public images"):
        planned("true", '["nearest_public"]', dataset='"mnist-samples"')


def test_weights_are_trained_on_the_half_that_is_not_public_only_where_images_are_granted():
    clients, plan = planned("true", weights="[1]")
    plain_clients, plain = planned("false", weights="[1]")
    setting, bare = plan.cells[0].setting, plain.cells[0].setting
    assert setting.trains_beside_public
    assert not bare.trains_beside_public
    assert setting.identity != bare.identity
    assert clients.data_digests(setting).trained != plain_clients.data_digests(bare).trained
    public, (pixels, _) = clients.public(setting), clients._other_half(setting).training()
    mine = {image.numpy().tobytes() for image in public.images}
    assert len(mine) > 100
    assert not mine & {image.numpy().tobytes() for image in pixels}
    recipes = [c.model(s, 0)[1].recipe_digest for c, s in ((clients, setting), (plain_clients, bare))]
    assert recipes[0] != recipes[1]


def test_an_observation_holds_public_images_only_where_they_are_granted():
    clients, plan = planned()
    block = next(cell for cell in plan.cells if cell.threat.public).blocks(4)[0]
    public = clients.public(block.cell.setting)
    assert public.images.dtype == torch.uint8
    assert public.labels.dtype == torch.int64
    released = clients.release(block)
    assert observe(released, ThreatModel(), public=public).public is None
    seen = observe(released, ThreatModel(public=True), public=public).public
    assert seen.digest == clients.public_set(block.cell.setting).digest
    assert len(seen) == plan.cells[-1].public.count


def test_floors_see_the_images_that_attacks_see():
    clients, plan = planned(more="public = 40")
    setting = plan.cells[0].setting
    public, means = clients.public(setting), clients.class_means(setting, ThreatModel(public=True))
    label = int(public.labels[0])
    own = public.images[public.labels == label].double().mean(0) / 255
    assert torch.allclose(means[label].double(), own, atol=1e-6)
    assert not torch.equal(means, clients.class_means(setting))


def test_public_images_of_enlarged_digits_are_enlarged_alike():
    clients, plan = planned(dataset='{ name = "digits", size = 16 }')
    usual, before = planned()
    setting = plan.cells[0].setting
    assert clients.dataset(setting).input_shape == (1, 16, 16)
    assert clients.public(setting).images.shape[1:] == (1, 16, 16)
    own = usual.public(before.cells[0].setting)
    assert len(own.labels) - 5 <= len(clients.public(setting).labels) <= len(own.labels) + 5  # copies are left out
    assert not {cell.id for cell in plan.cells} & {cell.id for cell in before.cells}


def test_every_row_says_how_many_public_images_there_were_and_which(tmp_path):
    registry = Registry([PLUGIN])
    told = {"dataset": '"digits"', "weights": '["untrained"]', "public": "[false, true]", "more": "public = 40"}
    config = from_toml(GRID.format(attacks='["nearest_public", "linear_layer"]', **told), registry)
    frame = run(config, registry, output=tmp_path / "run").frame()
    held = frame[frame["public"]]
    assert set(held["status"]) == {"ok"}
    assert set(held["threat_class"]) == {"D"}
    assert set(held["public_images"] + held["public_left_out"]) == {40}
    assert held["public_sha256"].str.len().eq(64).all()
    assert set(frame.loc[~frame["public"], "public_sha256"]) == {""}


def test_an_attack_that_learns_from_public_images_meets_the_conformance_suite_with_some():
    found = conformance("nearest_public", plugins=[PLUGIN])
    assert [one for one in found if one.failed] == []
    assert next(one for one in found if one.rule == "run").status == "passed"


def test_the_floor_of_public_images_knows_the_labels_that_an_attack_has_to_guess(tmp_path):
    registry = Registry([PLUGIN])
    told = {"dataset": '"digits"', "weights": '["untrained"]', "public": '[true]\nlabels = "recovered"', "more": ""}
    text = GRID.format(attacks='["nearest_public"]', **told).replace("threat = { public", "[grid.threat]\npublic")
    config = from_toml(text.replace('"recovered" }', '"recovered"'), registry)
    frame = run(config, registry, output=tmp_path / "run").frame()
    floor = frame[frame["attack"] == "class_mean"]
    assert len(floor) == 4
    assert set(floor["label_accuracy"]) == {1.0}
