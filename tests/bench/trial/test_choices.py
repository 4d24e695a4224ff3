"""The figures that learned attacks chose on public images: kept with every block, and no attacked image has a say."""

import json
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from attacks.attack import Attack, Reconstruction
from bench.data.load import load_dataset
from bench.engines.run import prepare, run
from bench.grid.config import from_toml
from bench.registry.registry import Registry
from bench.store.store import Store
from bench.trial import clients
from bench.trial.contract import AttackFault
from bench.trial.trial import attack_in_chunks

LEARNED = ("posterior_mean", "black_box_decoder")
GRID = """
name = "choices"
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [4] }]
images = 2
public = 80
attacks = ["posterior_mean", "black_box_decoder", "linear_layer"]
defenses = ["gaussian_noise(std=0.1)"]
[grid.threat]
public = true
defense_known = true
[engine]
threads = 1
execution = "eager"
"""


def finished(folder):
    """The store of a run of the grid, and the blocks of its cells by attack and defense."""
    run(from_toml(GRID, Registry()), output=folder)
    store = Store(folder)
    blocks = {(cell["attack_name"], cell["defense"], cell["attack"]): block for cell, block, _ in store.states()}
    return store, blocks


def other_digits(*args, **given):
    """The dataset with its last images in the place of its first ones."""
    own = load_dataset(*args, **given)
    return replace(own, labels=own.labels.flip(0), read=lambda ids: own.read([len(own) - 1 - i for i in ids]))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("first"))


def test_what_a_learned_attack_chose_is_equal_when_the_attacked_images_are_swapped(first, tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "Clients", partial(clients.Clients, open_dataset=other_digits))
    (store, blocks), (swapped, same) = first, finished(tmp_path)
    held = [
        {(cell["public_images"], cell["public_sha256"]) for cell in own.plan()["cells"]} for own in (store, swapped)
    ]
    assert held[0] == held[1]
    assert not (store.truth() == swapped.truth()).all()
    assert blocks.keys() == same.keys()
    for place, block in blocks.items():
        one, other = store.record(block["id"]), swapped.record(same[place]["id"])
        assert one["status"] == other["status"] == "ok", (place, one["reason"])
        # Where a tensor lies in memory decides the order of additions, and with it the last digits.
        assert one.get("choices", {}) == pytest.approx(other.get("choices", {}), rel=1e-6), place


def test_a_block_s_record_and_the_export_hold_what_was_chosen_and_other_records_have_no_such_key(first):
    store, blocks = first
    frame = store.frame()
    for (name, defense, label), block in blocks.items():
        record, rows = store.record(block["id"]), frame[(frame["attack"] == label) & (frame["defense"] == defense)]
        if name not in (*LEARNED, "same_class") or "linear_layer" in label:
            assert "choices" not in record
            assert rows["choices"].isna().all()
            continue
        assert record["choices"]
        assert any(key.endswith("held_out_score") for key in record["choices"])
        assert [json.loads(text) for text in rows["choices"]] == [record["choices"]] * 2
    assert Store(store.folder).frame()["choices"].map(type).isin([str, type(None)]).all()


def test_results_without_a_learned_attack_have_no_column_of_choices(first):
    store, _ = first
    bare = Store(store.folder)
    plan = store.plan()
    bare.plan = lambda: {**plan, "cells": [cell for cell in plan["cells"] if cell["attack_name"] == "linear_layer"]}
    assert "choices" not in bare.frame()


@dataclass(frozen=True)
class Follower(Attack):
    """Chooses by the update that it attacks, against the rule."""

    def reconstruct(self, observation, seeds):
        b = observation.images
        images = torch.zeros(observation.trials, b, *observation.task.input_shape)
        brightest = max(float(u.abs().max()) for u in observation.updates.values())
        labels = torch.zeros(observation.trials, b, dtype=torch.long)
        return Reconstruction(images, labels, choices={"brightest": brightest})


def test_an_attack_whose_choices_follow_the_attacked_images_is_a_fault():
    _, _, own, plan = prepare(from_toml(GRID, Registry()))
    cell = next(cell for cell in plan.cells if cell.attack.name == "linear_layer")
    [block] = cell.blocks(2)
    sent = own.release(block)
    seen = own.observed(cell, Follower(), [sent])
    attack_in_chunks(Follower(), seen, [0, 1], sent.truth, sent.labels, 2)
    with pytest.raises(AttackFault, match=r"choices\['brightest'\] is .* for some trials and .* for others"):
        attack_in_chunks(Follower(), seen, [0, 1], sent.truth, sent.labels, 1)
