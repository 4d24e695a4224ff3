"""Clients whose leakage is known beforehand: one that hides nothing more, one that hides nothing at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import leakboard
from bench.engines.run import prepare
from bench.registry.registry import Registry

PLUGINS = Path(__file__).parents[2] / "plugins"
NOOP = ['grid.defenses=["none","noop","local_epochs(epochs=2) | noop","local_epochs(epochs=2)"]']
LEAK = """
[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 4
attacks = ["leak_reader", "inverting_gradients(iterations=12)"]
defenses = ["none", "planted_leak", "larger_batch(examples=2)", "larger_batch(examples=2) | planted_leak"]
controls = false

[engine]
threads = 1
execution = "eager"
"""


def test_noop_sends_the_undefended_update_byte_for_byte(grid_file):
    _, _, clients, plan = prepare(grid_file, Registry([PLUGINS / "noop.py"]), overrides=NOOP)
    sent = {}
    for cell in plan.cells:
        own = clients.release(cell.blocks(plan.images)[0])
        sent[" | ".join(part.label for part in cell.defense)] = own
    for plain, same in (("none", "noop"), ("local_epochs(epochs=2)", "local_epochs(epochs=2) | noop")):
        assert sent[plain].digest == sent[same].digest
        assert all(torch.equal(u, sent[same].updates[name]) for name, u in sent[plain].updates.items())
    assert sent["none"].digest != sent["local_epochs(epochs=2)"].digest


@pytest.mark.parametrize("known", ["false", "true"])
def test_noop_has_the_undefended_reconstructions_byte_for_byte(grid_file, tmp_path, known):
    overrides = ['grid.defenses=["none","noop"]', f"grid.threat.defense_known={known}"]
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides, plugins=[PLUGINS / "noop.py"])
    frame = run.frame()
    assert (frame["status"] == "ok").all()
    stored = {}
    for (attack, defense), rows in frame.groupby(["attack", "defense"]):
        [path] = (run.folder / "blocks").glob(f"{rows['cell'].iloc[0]}-*.npz")
        with np.load(path) as arrays:
            stored[attack, defense] = {name: arrays[name].tobytes() for name in arrays}
        record = json.loads(path.with_suffix(".json").read_text())
        stored[attack, defense]["scores"] = [{**row, "seconds": 0} for row in record["images"]]
    attacks = {attack for attack, _ in stored}
    assert {"inverting_gradients(iterations=4)", "linear_layer"} <= attacks
    for attack in attacks:
        assert stored[attack, "none"] == stored[attack, "noop"], attack


def test_a_planted_leak_is_recorded_as_the_worst_there_is(tmp_path):
    """The attack that reads the pixels out stands at the cap, above all that attacks find in undefended updates."""
    grid = tmp_path / "leak.toml"
    grid.write_text(LEAK)
    plugins = [PLUGINS / "planted_leak.py", PLUGINS / "leak_reader.py"]
    frame = leakboard.run(grid, output=tmp_path / "run", plugins=plugins).frame()
    assert (frame["status"] == "ok").all()
    for b in (1, 2):
        clients = frame[frame["images_per_update"] == b]
        leaking = clients[clients["defense"].str.contains("planted_leak")]
        plain = clients[~clients["defense"].str.contains("planted_leak")]
        read = leaking[leaking["attack_name"] == "leak_reader"]
        assert (read["psnr_db"] == 100).all()
        assert read["ssim"].to_numpy() == pytest.approx(1)
        assert (read["identified"] == 1).all()
        assert (read["recovered"] == 1).all()
        best = plain.groupby("attack")[["ssim", "identified"]].mean().max()
        assert best["ssim"] < read["ssim"].mean() - 0.05
        own = plain[plain["attack_name"] == "leak_reader"]
        assert own["identified"].mean() < 1
        assert own["recovered"].mean() == 0
