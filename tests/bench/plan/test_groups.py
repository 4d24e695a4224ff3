"""Groups of blocks that run as one program: who joins, that nobody's result depends on it, and how one goes on."""

import json
import os
import re
from contextlib import contextmanager

import numpy as np
import pytest

import leakboard
from attacks.optimisation.inverting_gradients import InvertingGradients
from bench.devices import choose_device
from bench.engines import blocks as block_work
from bench.engines.local import LocalEngine
from bench.engines.progress import Watcher
from bench.engines.run import prepare
from bench.plan import groups as forming
from bench.plan.groups import Group, Groups
from bench.registry.specs import chain_label
from bench.store.block_marks import DEATHS
from bench.store.store import Store

ALONE = "grid.controls=false"
PLAIN = 'grid.attacks=["inverting_gradients(iterations=4,signed=False)"]'  # a sign would make much of rounding
NOISE = 'grid.defenses=["none","gaussian_noise(std=0.001)","gaussian_noise(std=0.1)"]'

HEAD = "from dataclasses import dataclass\nfrom leakboard import *\nimport torch\n\n@dataclass(frozen=True)\n"
DEFENSE = HEAD + "class Mine(Defense):\n    def transform(self, task, update, rng):\n        BODY\n"
ATTACK = (
    HEAD
    + '''class Mine(Attack):
    """Writes down how many trials it is shown; finds what lies nearest to the mean entry of each update."""

    log: str
    FLAGS

    def reconstruct(self, observation, seeds):
        with open(self.log, "a") as file:
            file.write(f"{observation.trials} ")
        first = next(iter(observation.updates.values())).flatten(1).mean(1)
        start = {"images": torch.zeros(len(first), 1, *observation.task.input_shape)}
        objective = lambda x, seen: (x["images"] - seen["first"]).square().mean()
        found = descend(objective, start, {"first": first}, Adam(3), signed=False, box=None)
        images = observation.task.denormalise(found.variables["images"]).clamp(0, 1)
        return Reconstruction(images, observation.labels, found.objective, found.start, found.trace)
'''
)


def plan(grid_file, tmp_path, *overrides, died=()):
    """The groups of a grid of which nothing is done; a process died over the blocks of some defenses."""
    config, registry, clients, planned = prepare(grid_file, overrides=overrides)
    store = Store(tmp_path / "run")
    store.create()
    for block in planned.blocks():
        if chain_label(block.cell.defense) in died:
            (store.blocks / f"{block.id}.deaths").write_text("1")
    engine = LocalEngine(planned, registry, clients, store, config.engine, choose_device("cpu"))
    blocks = engine.pending(())
    groups = engine.units(blocks)
    assert sorted(b.id for g in groups for b in g.blocks) == sorted(b.id for b in blocks)
    return groups


def named(groups):
    """Of each group, what the defenses of its blocks are called."""
    return [[chain_label(block.cell.defense) for block in group.blocks] for group in groups]


def sizes(groups):
    return [len(group.blocks) for group in groups]


def records(folder):
    """Block -> its record."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "blocks").glob("*.json"))}


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "blocks").iterdir()}


def results(folder):
    """Bytes of all arrays, and all scores without the times."""
    arrays = {path.name: path.read_bytes() for path in sorted((folder / "blocks").glob("*.npz"))}
    return arrays, {
        block: (record["status"], [{**row, "seconds": 0} for row in record.get("images", [])], record.get("trace"))
        for block, record in records(folder).items()
    }


def by_defense(folder):
    """Name of the defense -> its record, in a grid of one attack and one block for each defense."""
    cells = {cell["cell"]: cell["defense_name"] for cell in json.loads((folder / "plan.json").read_text())["cells"]}
    found = records(folder).values()
    assert len({record["cell"] for record in found}) == len(found)
    return {cells[record["cell"]]: record for record in found}


def assert_equal_to_rounding(one, other, blocks=None):
    """The results of two folders, or of these blocks of them."""
    mine, yours = records(one), records(other)
    blocks = sorted(mine) if blocks is None else blocks
    assert blocks
    assert set(blocks) <= mine.keys() & yours.keys()
    for block in blocks:
        a, b = mine[block], yours[block]
        assert (a["status"], a["update_sha256"], a["weights"]) == (b["status"], b["update_sha256"], b["weights"])
        for row, like in zip(a["images"], b["images"], strict=True):
            for key in ("image", "trial", "true_label", "update_norm", "label_accuracy"):
                assert row[key] == like[key], (block, key)
            for key in ("mse", "psnr_db", "objective_start", "objective_found", "objective_truth"):
                assert row[key] == pytest.approx(like[key], rel=1e-3, abs=1e-6), (block, key)
        assert a["trace"].keys() == b["trace"].keys()
        with np.load(one / "blocks" / f"{block}.npz") as x, np.load(other / "blocks" / f"{block}.npz") as y:
            assert x.files == y.files
            assert np.array_equal(x["labels"], y["labels"])
            assert np.abs(x["images"].astype(int) - y["images"]).max() <= 1, block
            for name in set(x.files) - {"images", "labels"}:
                np.testing.assert_allclose(x[name], y[name], rtol=1e-3, atol=1e-6, err_msg=f"{block} {name}")


@contextmanager
def without_groups():
    """Every block runs alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Groups, "of", lambda self, pending, planned, alone: [Group([block]) for block in pending])
        yield


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("calm") / "run"


@pytest.fixture
def calm(grid_file, kept):
    """The folder of a run of ALONE, PLAIN and NOISE that nothing disturbs."""
    if not kept.exists():
        assert leakboard.run(grid_file, output=kept, overrides=[ALONE, PLAIN, NOISE]).counts() == {"ok": 3}
    return kept


# Who joins


def test_defenses_and_strengths_of_one_schedule_are_one_group(grid_file, tmp_path):
    defenses = (
        'grid.defenses=["none","larger_batch(examples=2)",{name="gaussian_noise",std=[0.001,0.1]},'
        '"larger_batch(examples=2) | norm_clipping(clip_norm=1.0)","local_epochs(epochs=2)",'
        '"gradient_pruning(ratio=0.9)"]'
    )
    assert named(plan(grid_file, tmp_path, ALONE, PLAIN, defenses)) == [
        ["none", "gaussian_noise(std=0.001)", "gaussian_noise(std=0.1)", "gradient_pruning(ratio=0.9)"],
        ["larger_batch(examples=2)", "larger_batch(examples=2) | norm_clipping(clip_norm=1.0)"],
        ["local_epochs(epochs=2)"],
    ]


@pytest.mark.parametrize(
    ("axis", "label"),
    [
        ('grid.attacks=["euclidean(iterations=2)","euclidean(iterations=3)"]', lambda cell: cell.attack.label),
        ('grid.attacks=["euclidean_adam(iterations=2)","linear_layer"]', lambda cell: cell.attack.label),
        ('grid.threat.labels=["known","joint"]', lambda cell: cell.threat.labels),
        ('grid.models=["mlp(hidden=[16])","mlp(hidden=[8])"]', lambda cell: cell.setting.model.label),
    ],
)
def test_other_attacks_threats_and_settings_do_not_join(grid_file, tmp_path, axis, label):
    groups = plan(grid_file, tmp_path, ALONE, *([] if "attacks" in axis else [PLAIN]), NOISE, axis)
    assert sizes(groups) == [3, 3]
    assert [len({label(block.cell) for block in group.blocks}) for group in groups] == [1, 1]


def test_strengths_of_a_known_defense_do_not_join_and_its_seeds_do(grid_file, tmp_path):
    """Its surrogate is part of the program."""
    known = "grid.threat.defense_known=[false,true]"
    groups = plan(grid_file, tmp_path, ALONE, PLAIN, NOISE, known, "grid.seeds=[0,1]")
    assert sizes(groups) == [6, 2, 2, 2]
    for group in groups[1:]:
        assert {block.cell.threat.defense_known for block in group.blocks} == {True}
        assert len({chain_label(block.cell.defense) for block in group.blocks}) == 1


def test_a_block_of_a_known_defense_has_the_result_that_it_has_alone(grid_file, tmp_path):
    overrides = [ALONE, PLAIN, NOISE, "grid.threat.defense_known=[false,true]", "grid.seeds=[0,1]"]
    together = leakboard.run(grid_file, output=tmp_path / "together", overrides=overrides).frame()
    keys = ["defense", "defense_known", "seed", "image"]
    together = together.set_index(keys)["objective_found"].sort_index()
    found = {}
    for seed in (0, 1):
        for defense in ("none", "gaussian_noise(std=0.001)", "gaussian_noise(std=0.1)"):
            for known in ("false", "true"):
                alone = [f'grid.defenses=["{defense}"]', f"grid.threat.defense_known={known}", f"grid.seeds=[{seed}]"]
                output = tmp_path / f"{defense}-{known}-{seed}"
                frame = leakboard.run(grid_file, output=output, overrides=[ALONE, PLAIN, *alone]).frame()
                found |= frame.set_index(keys)["objective_found"].to_dict()
    assert found.keys() == set(together.index)
    assert [found[key] for key in together.index] == pytest.approx(together.tolist(), rel=1e-4)
    noisy = together.xs("gaussian_noise(std=0.1)", level="defense")
    assert (noisy.xs(True, level="defense_known") > noisy.xs(False, level="defense_known")).all()


def test_controls_and_what_they_borrow_stay_alone(grid_file, tmp_path):
    groups = plan(grid_file, tmp_path, 'grid.attacks=["inverting_gradients(iterations=4)","grey_image"]')
    joined = [group for group in groups if len(group.blocks) > 1]
    assert [{block.cell.attack.name for block in group.blocks} for group in joined] == [{"inverting_gradients"}]
    single = {group.blocks[0].cell.attack.name for group in groups if len(group.blocks) == 1}
    assert single == {"grey_image", "dataset_mean", "class_mean", "prior_only", "wrong_image"}


LOCAL = 'grid.defenses=["local_epochs(epochs=2)"]'


@pytest.mark.parametrize(
    ("overrides", "joined"),
    [
        ([PLAIN], True),
        ([PLAIN, 'grid.models=["mlp(hidden=[1300])"]'], True),  # 97,510 weights
        ([PLAIN, 'grid.models=["mlp(hidden=[1400])"]'], False),  # 105,010
        ([PLAIN, 'grid.threat.labels="joint"'], True),
        ([PLAIN, 'grid.threat.labels="recovered"'], False),
        ([PLAIN, LOCAL], True),
        ([PLAIN, LOCAL, "grid.threat.schedule_known=false"], False),
        ([PLAIN, "grid.threat.schedule_known=false"], True),
        (['grid.attacks=["euclidean(iterations=2)"]'], True),
        (['grid.attacks=["linear_layer"]'], False),  # does not honour weights of a trial's own
    ],
)
def test_model_seeds_join_where_every_lane_can_have_weights_of_its_own(grid_file, tmp_path, overrides, joined):
    defenses = [] if LOCAL in overrides else ['grid.defenses=["none"]']
    groups = plan(grid_file, tmp_path, ALONE, "grid.seeds=[0,1,2]", *defenses, *overrides)
    assert [[block.cell.seed for block in group.blocks] for group in groups] == (
        [[0, 1, 2]] if joined else [[0], [1], [2]]
    )


@pytest.mark.parametrize(("norm", "expected"), [("group", [2]), ("batch", [1, 1])])
def test_model_seeds_of_a_network_with_state_beside_its_weights_do_not_join(
    grid_file, tmp_path, monkeypatch, norm, expected
):
    monkeypatch.setattr(forming, "OWN_WEIGHTS", 10_000_000)
    model = f"grid.models=[\"resnet20(norm='{norm}')\"]"
    groups = plan(grid_file, tmp_path, ALONE, PLAIN, model, "grid.seeds=[0,1]", 'grid.defenses=["none"]')
    assert sizes(groups) == expected


@pytest.mark.parametrize(("restarts", "expected"), [(1, [6, 6, 4]), (2, [3, 3, 3, 3, 3, 1]), (7, [1] * 16)])
def test_a_group_holds_128_lanes_at_most_and_no_block_is_cut(grid_file, tmp_path, restarts, expected):
    attack = f'grid.attacks=["inverting_gradients(iterations=4,restarts={restarts})"]'
    noise = 'grid.defenses=[{name="gaussian_noise",std=[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0]}]'
    assert sizes(plan(grid_file, tmp_path, ALONE, attack, noise, "grid.images=40")) == expected


@pytest.mark.parametrize(("images", "expected"), [(8, [2, 1]), (7, [1, 1, 1]), (3, [1, 1, 1])])
def test_a_group_holds_no_more_activations_than_fill_the_processor(grid_file, tmp_path, monkeypatch, images, expected):
    # Of one image: normalised 64, flattened 64, a layer of 16 with its ReLU, ten logits.
    monkeypatch.setattr(forming, "FLOATS", images * (64 + 64 + 16 + 16 + 10))
    assert sizes(plan(grid_file, tmp_path, ALONE, PLAIN, NOISE)) == expected


def test_a_block_over_which_a_process_died_joins_nobody(grid_file, tmp_path):
    groups = plan(grid_file, tmp_path, ALONE, PLAIN, NOISE, died=["gaussian_noise(std=0.001)"])
    assert named(groups) == [["none", "gaussian_noise(std=0.1)"], ["gaussian_noise(std=0.001)"]]


@pytest.mark.parametrize(("flags", "shown"), [("", "4 4 4 "), ("joint = True", "12 ")])
def test_an_attack_of_a_plugin_joins_only_when_it_says_that_it_may(grid_file, tmp_path, flags, shown):
    plugin, log = tmp_path / "mine.py", tmp_path / "log"
    plugin.write_text(ATTACK.replace("FLAGS", flags))
    overrides = [ALONE, NOISE, f"grid.attacks=[\"mine(log='{log}')\"]"]
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides, plugins=[plugin])
    assert run.counts() == {"ok": 3}
    assert log.read_text() == shown
    assert {len(record["cost"]["group"]) for record in records(run.folder).values()} == {3 if flags else 0}


# Results


def test_every_block_of_a_group_has_the_result_that_it_has_alone(grid_file, tmp_path):
    """Clients of one and of two images, several strengths, model seeds and restarts, and a short last block."""
    overrides = [
        ALONE, "grid.seeds=[0,1]", "grid.images=22",
        'grid.attacks=["inverting_gradients(iterations=6,restarts=2,signed=False)"]',
        'grid.defenses=["none","gaussian_noise(std=0.1)","larger_batch(examples=2)",'
        '"larger_batch(examples=2) | gradient_pruning(ratio=0.9)"]',
    ]  # fmt: skip
    together = leakboard.run(grid_file, output=tmp_path / "together", overrides=overrides)
    with without_groups():
        alone = leakboard.run(grid_file, output=tmp_path / "alone", overrides=overrides)
    assert together.counts() == alone.counts() == {"ok": 4 * 2 * 2}
    assert {len(record["cost"]["group"]) for record in records(alone.folder).values()} == {0}
    seeds = {cell["cell"]: cell["seed"] for cell in together.store.plan()["cells"]}
    groups = {tuple(record["cost"]["group"]) for record in records(together.folder).values()}
    assert {len({seeds[block.split("-")[0]] for block in group}) for group in groups} == {1, 2}
    assert min(len(group) for group in groups) > 1
    assert_equal_to_rounding(together.folder, alone.folder)
    shas = {record["update_sha256"] for record in records(together.folder).values()}
    assert len(shas) == 4 * 2 * 2
    assert len(set(results(alone.folder)[0].values())) == 4 * 2 * 2  # a result in another's place would be seen


@pytest.mark.parametrize("labels", ["joint", "recovered"])
def test_labels_that_the_attacker_finds_belong_to_the_block(grid_file, tmp_path, labels):
    overrides = [
        ALONE, PLAIN, "grid.seeds=[0,1]", f'grid.threat.labels="{labels}"',
        'grid.defenses=["none","gaussian_noise(std=10.0)"]',
    ]  # fmt: skip
    together = leakboard.run(grid_file, output=tmp_path / "together", overrides=overrides)
    with without_groups():
        alone = leakboard.run(grid_file, output=tmp_path / "alone", overrides=overrides)
    assert {len(r["cost"]["group"]) for r in records(together.folder).values()} == {4 if labels == "joint" else 2}
    assert_equal_to_rounding(together.folder, alone.folder)


def test_the_user_s_chunk_cuts_a_group_and_changes_no_result(grid_file, tmp_path):
    overrides = [ALONE, NOISE, 'grid.attacks=["inverting_gradients(iterations=4,restarts=2,signed=False)"]']
    whole = leakboard.run(grid_file, output=tmp_path / "whole", overrides=overrides)
    cut = leakboard.run(grid_file, output=tmp_path / "cut", overrides=[*overrides, "engine.chunk=5"])

    def chunks(run):
        return {how["chunk"] for r in records(run.folder).values() for how in r["cost"]["execution"]}

    assert chunks(whole) == {24}
    assert max(chunks(cut)) <= 10  # two restarts of five trials
    assert {len(record["cost"]["group"]) for record in records(cut.folder).values()} == {3}
    assert_equal_to_rounding(whole.folder, cut.folder)


def test_the_record_says_how_the_block_was_run_and_with_whom(grid_file, tmp_path):
    run = leakboard.run(
        grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE, "engine.precision=bfloat16"]
    )
    for record in records(run.folder).values():
        cost = record["cost"]
        assert cost["group"] == [cell["blocks"][0]["id"] for cell in run.store.plan()["cells"]]
        [how] = cost["execution"]
        assert (how["execution"], how["gradient"], how["precision"]) == ("eager", "double_backward", "bfloat16")
        assert (how["lanes"], how["chunk"]) == (12, 12)
        assert how["why"]
        assert how.keys() >= {"peak_bytes", "milliseconds", "compile_seconds"}


# Going on


class Stopped(KeyboardInterrupt):
    """A person's Ctrl-C."""


def run_until(published, monkeypatch, grid_file, folder, *overrides):
    """A run that is stopped when so many blocks are published."""
    write = Store.write_record

    def write_record(self, block, record):
        if len(records(folder)) == published:
            raise Stopped
        write(self, block, record)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_record", write_record)
        with pytest.raises(Stopped):
            leakboard.run(grid_file, output=folder, overrides=overrides)
    assert len(records(folder)) == published
    assert not list((folder / "blocks").glob("*.running"))


@pytest.mark.parametrize(("published", "settings"), [(1, []), (4, ["engine.chunk=5"])])
def test_a_group_that_was_stopped_goes_on_to_the_bytes_of_a_calm_run(
    grid_file, tmp_path, monkeypatch, published, settings
):
    attacks = 'grid.attacks=["inverting_gradients(iterations=4)","euclidean_adam(iterations=4)"]'
    overrides = [ALONE, NOISE, attacks, *settings]
    calm = leakboard.run(grid_file, output=tmp_path / "calm", overrides=overrides)
    run_until(published, monkeypatch, grid_file, tmp_path / "run", *overrides)
    before = stamps(tmp_path / "run")
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    assert results(run.folder) == results(calm.folder)
    after = records(run.folder)
    assert {block: r["cost"]["group"] for block, r in after.items()} == {
        block: r["cost"]["group"] for block, r in records(calm.folder).items()
    }
    finished = {name for name in before if name.endswith(".json")}
    assert finished.union(name.replace(".json", ".npz") for name in finished) <= before.keys()
    assert all(stamps(run.folder)[name] == before[name] for name in finished)


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "cut off": lambda path: path.write_text(path.read_text()[:-40]),
    "of other blocks": lambda path: path.write_text(
        path.read_text().replace(begun(path)[-1], "0" * 16 + "-00000-00004")
    ),
    "of another version": lambda path: path.write_text(path.read_text().replace('"why"', '"because"')),
    "of another form": lambda path: path.write_text("null"),
    "of one number": lambda path: path.write_text("[1]"),
    "of an empty group": lambda path: path.write_text("[{}]"),
}


def begun(path):
    """The blocks of the groups that are remembered."""
    return re.findall(r"[0-9a-f]{16}-\d{5}-\d{5}", path.read_text())


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_left_of_a_group_that_nobody_remembers_is_a_group_of_its_own(
    grid_file, calm, tmp_path, monkeypatch, damage
):
    overrides = [ALONE, PLAIN, NOISE]
    folder = tmp_path / "run"
    run_until(1, monkeypatch, grid_file, folder, *overrides)
    DAMAGE[damage](folder / "groups.json")
    [first] = records(folder)
    before = stamps(folder)
    run = leakboard.run(grid_file, output=folder, overrides=overrides)
    assert run.counts() == {"ok": 3}
    assert all(stamps(folder)[name] == before[name] for name in (f"{first}.json", f"{first}.npz"))
    rest = [block for block in records(folder) if block != first]
    assert all(sorted(records(folder)[block]["cost"]["group"]) == sorted(rest) for block in rest)
    assert_equal_to_rounding(folder, calm)
    assert begun(folder / "groups.json")[-2:] == records(folder)[rest[0]]["cost"]["group"]


def test_a_grown_grid_groups_what_is_new_and_leaves_what_is_stored(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE, "grid.images=20"])
    old, before = records(run.folder), stamps(run.folder)
    more = NOISE.replace("]", ',"gaussian_noise(std=1.0)"]')
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, more, "grid.images=24"])
    assert run.counts() == {"ok": 4 * 2}
    assert {name: stamp for name, stamp in stamps(run.folder).items() if name in before} == before
    new = records(run.folder).keys() - old.keys()
    assert {tuple(sorted(records(run.folder)[block]["cost"]["group"])) for block in new} == {tuple(sorted(new))}


@pytest.mark.parametrize("setting", ["engine.execution=eager", "engine.chunk=1"])
def test_what_is_left_of_a_group_runs_by_itself_under_other_settings(grid_file, calm, tmp_path, monkeypatch, setting):
    folder = tmp_path / "run"
    run_until(1, monkeypatch, grid_file, folder, ALONE, PLAIN, NOISE)
    [first] = records(folder)
    leakboard.run(grid_file, output=folder, overrides=[ALONE, PLAIN, NOISE, setting])
    found = records(folder)
    assert {block: len(record["cost"]["group"]) for block, record in found.items() if block != first} == {
        block: 2 for block in found if block != first
    }
    assert {how["chunk"] for block in found if block != first for how in found[block]["cost"]["execution"]} == (
        {1} if "chunk" in setting else {8}
    )
    assert_equal_to_rounding(folder, calm)


def test_a_stale_member_of_a_group_is_run_again_only_when_asked(grid_file, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(DEFENSE.replace("BODY", "return update"))
    defenses = 'grid.defenses=["none","mine","gaussian_noise(std=0.1)"]'
    common = {"output": tmp_path / "run", "plugins": [plugin], "overrides": [ALONE, PLAIN, defenses]}
    run = leakboard.run(grid_file, **common)
    blocks = {name: record["block"] for name, record in by_defense(run.folder).items()}
    plugin.write_text(DEFENSE.replace("BODY", "return {name: 2 * u for name, u in update.items()}"))
    (run.folder / "blocks" / f"{blocks['none']}.json").unlink()
    before = stamps(run.folder)
    leakboard.run(grid_file, **common)
    assert run.counts() == {"ok": 2, "stale": 1}
    assert {name for name, stamp in stamps(run.folder).items() if before.get(name) != stamp} == {
        f"{blocks['none']}.json", f"{blocks['none']}.npz"
    }  # fmt: skip


def test_an_attack_that_may_not_join_any_more_is_not_run_in_a_group_of_old(grid_file, tmp_path):
    plugin, log = tmp_path / "mine.py", tmp_path / "log"
    plugin.write_text(ATTACK.replace("FLAGS", "joint = True"))
    overrides = [ALONE, NOISE, f"grid.attacks=[\"mine(log='{log}')\"]"]
    common = {"output": tmp_path / "run", "plugins": [plugin], "overrides": overrides}
    leakboard.run(grid_file, **common)
    plugin.write_text(ATTACK.replace("FLAGS", ""))
    leakboard.run(grid_file, **common, retry=["stale"])
    assert log.read_text() == "12 4 4 4 "


@pytest.mark.parametrize(("settings", "chunk"), [([], 4), (["engine.chunk=1"], 1)])
def test_a_block_that_was_given_up_is_tried_again_alone_and_in_the_chunk_of_now(grid_file, tmp_path, settings, chunk):
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE])
    block, record = list(records(run.folder).items())[1]
    run.store.write_record(block, {**record, "status": "crashed"})
    before = stamps(run.folder)
    leakboard.run(grid_file, output=run.folder, overrides=[ALONE, PLAIN, NOISE, *settings], retry=["crashed"])
    cost = records(run.folder)[block]["cost"]
    assert cost["group"] == []
    assert {how["chunk"] for how in cost["execution"]} == {chunk}
    after = stamps(run.folder)
    assert {name for name in after if after[name] != before[name]} == {f"{block}.json", f"{block}.npz"}


def test_the_form_of_the_gradient_is_part_of_what_a_group_was_begun_with(grid_file, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run_until(1, monkeypatch, grid_file, folder, ALONE, PLAIN, NOISE)
    path = folder / "groups.json"
    path.write_text(path.read_text().replace("double_backward", "forward_over_reverse"))
    run = leakboard.run(grid_file, output=folder, overrides=[ALONE, PLAIN, NOISE])
    forms = [r["cost"]["execution"][0]["gradient"] for r in records(run.folder).values()]
    assert sorted(forms) == ["double_backward", "forward_over_reverse", "forward_over_reverse"]


# A member that fails

FAULTS = {
    "raises": ("raise RuntimeError('out of luck')", "error", "RuntimeError: out of luck"),
    "undefined": ("return {name: u * float('nan') for name, u in update.items()}", "error", "infinite or undefined"),
    "diverges": (
        "return {name: u * 1e38 for name, u in update.items()}",
        "diverged",
        "of 4 trials ended in infinite or undefined pixels",
    ),
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_defense_that_fails_takes_nobody_along(grid_file, tmp_path, how):
    body, status, reason = FAULTS[how]
    plugin = tmp_path / "mine.py"
    plugin.write_text(DEFENSE.replace("BODY", body))
    defenses = 'grid.defenses=["none","mine","gaussian_noise(std=0.1)"]'
    attack = 'grid.attacks=["euclidean_adam(iterations=3)"]'
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, attack, defenses], plugins=[plugin])
    found = by_defense(run.folder)
    assert [record["status"] for record in found.values()].count("ok") == 2
    assert found["mine"]["status"] == status
    assert reason in found["mine"]["reason"]
    without = [ALONE, attack, 'grid.defenses=["none","gaussian_noise(std=0.1)"]']
    calm = leakboard.run(grid_file, output=tmp_path / "calm", overrides=without)
    assert_equal_to_rounding(run.folder, calm.folder, sorted(records(calm.folder)))


def test_an_attack_that_fails_on_one_block_fails_there_alone(grid_file, calm, tmp_path, monkeypatch):
    plain, seen = InvertingGradients.reconstruct, []

    def reconstruct(self, observation, seeds):
        seen.append(observation.trials)
        found = plain(self, observation, seeds)
        if any(norm > 1 for norm in update_norms(observation)):
            raise RuntimeError("too much noise")
        return found

    monkeypatch.setattr(InvertingGradients, "reconstruct", reconstruct)
    noise = NOISE.replace("]", ',"gaussian_noise(std=10.0)"]')
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, noise])
    assert run.counts() == {"ok": 3, "error": 1}
    assert seen == [16, 4, 4, 4, 4]
    assert_equal_to_rounding(run.folder, calm, sorted(records(calm)))


def update_norms(observation):
    return sum(u.flatten(1).square().mean(1) for u in observation.updates.values()).tolist()


@pytest.mark.parametrize(("deaths", "status"), [(DEATHS - 1, "ok"), (DEATHS, "crashed")])
def test_a_group_over_which_processes_died_goes_on_without_its_first_block(
    grid_file, calm, tmp_path, monkeypatch, deaths, status
):
    folder = tmp_path / "run"
    run_until(0, monkeypatch, grid_file, folder, ALONE, PLAIN, NOISE)
    first, *others = begun(folder / "groups.json")
    (folder / "blocks" / f"{first}.deaths").write_text(str(deaths))
    leakboard.run(grid_file, output=folder, overrides=[ALONE, PLAIN, NOISE])
    found = records(folder)
    assert {block: record["status"] for block, record in found.items()} == {
        **dict.fromkeys(others, "ok"),
        first: status,
    }
    assert found[first].get("cost", {"group": []})["group"] == []
    assert all(found[block]["cost"]["group"] == others for block in others)
    assert_equal_to_rounding(folder, calm, others)
    assert not list((folder / "blocks").glob("*.deaths"))


@pytest.mark.parametrize(("timeout", "expected"), [(2.0, {"ok": 3}), (1.0, {"timeout": 3})])
def test_the_time_that_a_block_may_take_counts_once_for_each_of_a_group(
    grid_file, tmp_path, monkeypatch, timeout, expected
):
    """Four iterations of a second: 4 s are less than three blocks may take at 2 s each, and more than at 1 s."""
    clock, plain = [0.0], Watcher.progress

    def progress(self, *arguments):
        clock[0] += 1.0
        plain(self, *arguments)

    monkeypatch.setattr(Watcher, "progress", progress)
    monkeypatch.setattr(block_work.time, "perf_counter", lambda: clock[0])
    run = leakboard.run(
        grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE, f"engine.timeout={timeout}"]
    )
    assert run.counts() == expected
    if "ok" in expected:  # to each an equal share, and to each image of a block
        costs = [(r["cost"]["seconds"], r["images"][0]["seconds"]) for r in records(run.folder).values()]
        assert costs == [pytest.approx((4 / 3, 1 / 3))] * 3
    else:
        assert set(run.frame()["reason"]) == {"over engine.timeout = 1 s at iteration 2 of 4"}


# Precision


def test_results_of_another_precision_are_stale_and_those_of_controls_are_not(grid_file, tmp_path):
    """But for those that are borrowed from the attack."""
    overrides = ['grid.attacks=["inverting_gradients(iterations=4)"]', 'grid.defenses=["none"]']
    bfloat16 = [*overrides, "engine.precision=bfloat16"]
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    before = stamps(run.folder)
    leakboard.run(grid_file, output=tmp_path / "run", overrides=bfloat16)
    frame = run.frame()
    assert set(frame.loc[frame["status"] == "stale", "attack_name"]) == {"inverting_gradients", "wrong_image"}
    floors = {"grey_image", "dataset_mean", "class_mean", "prior_only"}
    assert set(frame.loc[frame["status"] == "ok", "attack_name"]) >= floors
    assert stamps(run.folder) == before
    leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    assert set(run.counts()) == {"ok"}
    assert stamps(run.folder) == before
    leakboard.run(grid_file, output=tmp_path / "run", overrides=bfloat16, retry=["stale"])
    assert set(run.counts()) == {"ok"}
    leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    assert run.counts()["stale"] == 2


def test_deaths_over_a_group_whose_first_block_is_done_are_counted(grid_file, tmp_path):
    """Else its process is started again for ever."""
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE])
    _, registry, clients, planned = prepare(grid_file, overrides=[ALONE, PLAIN, NOISE])
    last = list(planned.blocks())[-1]
    (run.folder / "blocks" / f"{last.id}.json").unlink()
    engine = LocalEngine(planned, registry, clients, run.store, planned.config.engine, choose_device("cpu"))
    for _ in range(2 * DEATHS):
        [group] = engine.units(engine.pending(()))
        run.store.marks.start(group.lead.id)
        assert run.store.marks.blame(os.getpid()) is not None
    [group] = engine.units(engine.pending(()))
    assert [block.id for block in group.blocks] == [last.id]
    assert run.store.marks.deaths(last.id) >= DEATHS


def test_what_is_told_of_finished_blocks_is_not_more_than_was_pending(grid_file, tmp_path, monkeypatch):
    run_until(1, monkeypatch, grid_file, tmp_path / "run", ALONE, PLAIN, NOISE)
    told, plain = [], Watcher.finished
    monkeypatch.setattr(Watcher, "finished", lambda self, *a: (told.append(a[0].id), plain(self, *a)))
    leakboard.run(grid_file, output=tmp_path / "run", overrides=[ALONE, PLAIN, NOISE])
    assert len(told) == 2
