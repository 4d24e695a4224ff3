"""Runs from Python: resuming, staleness, failures, and what is stored."""

import json

import numpy as np
import pytest
import torch

import leakboard
from attacks.floors.grey_image import GreyImage
from bench.engines import blocks, local
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.trial.clients import Clients
from bench.trial.trial import attack_in_chunks

SHORT = 'grid.attacks=["linear_layer","prior_only(iterations=4)"]'  # without a grid's word the control runs for long


def results(folder):
    """Everything that is stored of the results: names to bytes of arrays, names to scores."""
    arrays = {path.name: path.read_bytes() for path in sorted((folder / "blocks").glob("*.npz"))}
    records = {}
    for path in sorted((folder / "blocks").glob("*.json")):
        record = json.loads(path.read_text())
        records[path.name] = (record["status"], [{**row, "seconds": 0} for row in record.get("images", [])])
    return arrays, records


def untouched(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "blocks").glob("*.json")}


def test_a_grid_runs_to_a_frame_with_controls(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run")
    frame = run.frame()
    assert run.failed == 0
    assert set(run.counts()) == {"ok"}
    names = set(frame["attack_name"])
    assert names == {
        "inverting_gradients", "linear_layer", "grey_image", "dataset_mean", "class_mean", "prior_only", "wrong_image",
    }  # fmt: skip
    assert len(frame) == 4 * 3 * 8  # images x defenses x (two attacks, four floors, two wrong images)
    exact = frame[(frame["attack_name"] == "linear_layer") & (frame["defense"] == "none")]
    assert (exact["psnr_db"] == 100).all()
    assert (exact["identified"] == 1).all()
    assert exact["ssim"].isna().all()  # 8 x 8 pixels are under the window
    assert (frame.loc[frame["attack_name"] == "grey_image", "objective_found"].isna()).all()


def test_a_run_ends_the_process_in_which_its_plugins_compute_clients(grid_file, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Clients, "close", lambda self: closed.append(self))
    monkeypatch.setattr(local.LocalEngine, "pending", lambda *_: [])
    leakboard.run(grid_file, output=tmp_path / "run")
    assert len(closed) == 1


def test_the_same_command_again_computes_nothing(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run")
    before = untouched(run.folder)
    leakboard.run(grid_file, output=tmp_path / "run")
    assert untouched(run.folder) == before


def test_a_resumed_run_has_the_bytes_of_a_calm_one(grid_file, tmp_path):
    calm = results(leakboard.run(grid_file, output=tmp_path / "calm").folder)
    run = leakboard.run(grid_file, output=tmp_path / "run")
    for path in list((run.folder / "blocks").glob("*.json"))[::3]:
        path.unlink()
    victim = next((run.folder / "blocks").glob("*.json"))
    victim.write_text(victim.read_text()[:50])  # as if a disk had lost half of it
    leakboard.run(grid_file, output=tmp_path / "run")
    assert results(run.folder) == calm


def test_a_larger_grid_computes_only_what_is_new(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=["grid.images=20"])
    before = untouched(run.folder)
    leakboard.run(grid_file, output=tmp_path / "run", overrides=["grid.images=24", SHORT])
    after = untouched(run.folder)
    assert all(after[name] == stamp for name, stamp in before.items())
    assert len(after) > len(before)


def test_a_changed_method_is_stale_and_runs_again_only_when_asked(grid_file, plugin_file, tmp_path):
    common = {
        "output": tmp_path / "run",
        "plugins": [plugin_file],
        "overrides": ['grid.defenses=["none","my_defense"]'],
    }
    run = leakboard.run(grid_file, **common)
    plugin_file.write_text(plugin_file.read_text().replace("u.abs().mean()", "2 * u.abs().mean()"))
    again = leakboard.run(grid_file, **common)
    assert again.counts()["stale"] == 8
    frame = again.frame()
    assert frame.loc[frame["defense"] == "my_defense", "psnr_db"].isna().all()
    assert frame.loc[frame["defense"] == "none", "psnr_db"].notna().all()
    leakboard.run(grid_file, **common, retry=["stale"])
    assert run.counts() == {"ok": 16}


def test_changed_scoring_is_applied_to_stored_reconstructions(grid_file, tmp_path, monkeypatch):
    run = leakboard.run(grid_file, output=tmp_path / "run")
    calm = results(run.folder)
    for path in (run.folder / "blocks").glob("*.json"):
        record = json.loads(path.read_text())
        for row in record["images"]:
            row["psnr_db"] = -1.0
        path.write_text(json.dumps({**record, "scoring": "older"}))
    said = []
    leakboard.run(grid_file, output=tmp_path / "run", say=said.append)
    assert results(run.folder) == calm
    assert "24 stored blocks were scored again" in said[0]


def test_the_code_of_the_scoring_is_digested_once_a_run(grid_file, tmp_path, monkeypatch):
    digested = []
    monkeypatch.setattr(local, "scoring_fingerprint", lambda pool: digested.append(pool) or "of the scoring")
    leakboard.run(grid_file, output=tmp_path / "run", overrides=[SHORT])
    assert len(digested) == 1


BROKEN = {
    "raises": ("raise RuntimeError('out of luck')", "out of luck"),
    "shape": ("return {name: u[..., :1] for name, u in update.items()}", "the parameter is"),
    "writes": ("[u.zero_() for u in update.values()]; return update", "wrote into its argument"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_defense_is_a_failed_cell_with_its_reason_and_no_score(grid_file, tmp_path, plugin_file, how):
    body, reason = BROKEN[how]
    text = plugin_file.read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("return {"))
    plugin_file.write_text(text.replace(line.strip(), body))
    overrides = ['grid.defenses=["none","my_defense"]', SHORT]
    run = leakboard.run(grid_file, output=tmp_path / "run", plugins=[plugin_file], overrides=overrides)
    frame = run.frame()
    own = frame[frame["defense"] == "my_defense"]
    assert run.failed
    assert own["psnr_db"].isna().all()
    assert own.loc[own["attack_name"] == "linear_layer", "status"].tolist() == ["error"]
    assert reason in own["reason"].iloc[0]
    assert frame.loc[frame["defense"] == "none", "psnr_db"].notna().all()


def test_a_diverged_attack_has_no_score(grid_file, tmp_path, monkeypatch):
    lost = GreyImage.reconstruct

    def reconstruct(self, observation, seeds):
        found = lost(self, observation, seeds)
        found.images[0] = float("nan")
        return found

    monkeypatch.setattr(GreyImage, "reconstruct", reconstruct)
    frame = leakboard.run(grid_file, output=tmp_path / "run").frame()
    own = frame[frame["attack_name"] == "grey_image"]
    assert (own["status"] == "diverged").all()
    assert own["psnr_db"].isna().all()
    assert "1 of 4 trials" in own["reason"].iloc[0]


def test_a_block_over_its_time_is_a_timeout(grid_file, tmp_path):
    overrides = ["engine.timeout=0.0001", "grid.controls=false", 'grid.attacks=["inverting_gradients(iterations=50)"]']
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    assert run.counts() == {"timeout": 3}
    assert "engine.timeout" in run.frame()["reason"].iloc[0]
    leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides[1:], retry=["timeout"])
    assert run.counts() == {"ok": 3}


def test_out_of_memory_halves_the_chunk_and_changes_no_result(grid_file, tmp_path, monkeypatch):
    calm = results(leakboard.run(grid_file, output=tmp_path / "calm", overrides=["engine.chunk=1"]).folder)
    plain = GreyImage.reconstruct

    def reconstruct(self, observation, seeds):
        if observation.trials > 1:
            raise torch.OutOfMemoryError("too much")
        return plain(self, observation, seeds)

    monkeypatch.setattr(GreyImage, "reconstruct", reconstruct)
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=["engine.chunk=4"])
    frame = run.frame()
    assert (frame.loc[frame["attack_name"] == "grey_image", "status"] == "ok").all()
    grey = [
        name for name in calm[0] if name.split("-")[0] in set(frame.loc[frame["attack_name"] == "grey_image", "cell"])
    ]
    assert all(results(run.folder)[0][name] == calm[0][name] for name in grey)


SWAPPED = {
    "defense": ["grid.threat.defense_known=[false,true]"],
    "batch norm": [
        'grid.threat.batch_norm=["running","batch","unknown"]', 'grid.models=[{ name = "resnet20", width = 2 }]',
        'grid.attacks=["see_through_gradients(iterations=2, group_size=2)"]', 'grid.defenses=["none"]',
        "grid.images=2", "grid.controls=false",
    ],
}  # fmt: skip


@pytest.mark.parametrize("knowledge", SWAPPED)
def test_swapping_the_truth_after_observation_changes_no_byte_of_a_reconstruction(
    grid_file, tmp_path, monkeypatch, knowledge
):
    """While the attack runs, the referee's own private images and labels hold noise."""
    both = SWAPPED[knowledge]
    calm = leakboard.run(grid_file, output=tmp_path / "calm", overrides=both).folder

    def attack_over_noise(attack, seen, seeds, truth, labels, chunk):
        kept = truth.clone(), labels.clone()
        truth.random_(0, 256)
        labels.random_(0, 10)
        attacked = attack_in_chunks(attack, seen, seeds, truth, labels, chunk)
        truth.copy_(kept[0])
        labels.copy_(kept[1])
        return attacked

    monkeypatch.setattr(blocks, "attack_in_chunks", attack_over_noise)
    swapped = leakboard.run(grid_file, output=tmp_path / "swapped", overrides=both).folder
    for path in sorted((calm / "blocks").glob("*.npz")):
        with np.load(path) as one, np.load(swapped / "blocks" / path.name) as other:
            for name in ("images", "labels", "found", "start", *[n for n in one if n.startswith("trace")]):
                assert name not in one or np.array_equal(one[name], other[name]), (path.name, name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.images=5000", "has .* images to attack"),
        ('grid.defenses=["larger_batch(examples=3)"]', "the next number that does is 6"),
        ('grid.defenses=["gaussian_noise(std=1.0) | dp_sgd"]', "schedules, then at most one share"),
        ('grid.defenses=["nun"]', "did you mean 'none'"),
        ('grid.models=["squeezenet1_0"]', "squeezenet1_0"),
        ('grid.dataset="fashion-mist"', "fashion-mnist"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_anything_runs(grid_file, tmp_path, override, message):
    with pytest.raises(ConfigurationError, match=message):
        leakboard.run(grid_file, output=tmp_path / "run", overrides=[override])
    assert not (tmp_path / "run").exists()


def test_attacks_that_a_model_does_not_allow_are_skipped_with_the_reason(tmp_path, grid_file):
    overrides = [
        'grid.models=["squeezenet1_0"]', 'grid.dataset="imagenet-samples"', "grid.images=1", "grid.controls=false",
        'grid.attacks=["linear_layer","grey_image"]',
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="fully connected layer"):
        prepare(grid_file, overrides=overrides)
    overrides[-1] = 'grid.attacks=["linear_layer","inverting_gradients(iterations=1)"]'
    plan = prepare(grid_file, overrides=overrides)[3]
    reasons = {cell.attack.name: cell.skip for cell in plan.cells}
    assert reasons["inverting_gradients"] is None
    assert "fully connected layer" in reasons["linear_layer"]


def test_a_model_that_a_defense_changes_is_the_same_for_the_whole_setting(grid_file):
    overrides = ['grid.models=["resnet20"]', 'grid.dataset="mnist-samples"', 'grid.defenses=["none","dp_sgd"]']
    plan = prepare(grid_file, overrides=overrides)[3]
    assert {cell.setting.model_label for cell in plan.cells} == {"resnet20 prepared for dp_sgd"}
    alone = prepare(grid_file, overrides=[*overrides[:2], 'grid.defenses=["none"]'])[3]
    assert {cell.setting.model_label for cell in alone.cells} == {"resnet20"}
    assert not {c.id for c in plan.cells} & {c.id for c in alone.cells}


def test_ids_of_cells_that_were_made_before_batch_norm_was_declared_stay(grid_file):
    """The id of a cell as it was before the threat model had the key."""
    first = prepare(grid_file)[3].cells[1]
    assert (first.attack.label, first.id) == ("linear_layer", "d418295ff2ca4cf0")
    others = prepare(grid_file, overrides=['grid.threat.batch_norm=["batch","unknown"]'])[3].cells
    assert len({first.id, *(cell.id for cell in others)}) == 1 + len(others)


def test_ids_depend_on_choices_and_not_on_the_number_of_images(grid_file):
    few, many = (prepare(grid_file, overrides=[f"grid.images={n}"])[3] for n in (4, 40))
    assert [c.id for c in few.cells] == [c.id for c in many.cells]
    assert len({c.id for c in few.cells}) == len(few.cells)
    other = prepare(grid_file, overrides=["grid.seeds=[1]"])[3]
    assert not {c.id for c in few.cells} & {c.id for c in other.cells}
    assert [(b.start, b.stop) for b in many.cells[0].blocks(40)] == [(0, 20), (20, 40)]
