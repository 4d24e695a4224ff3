"""The presets in which the server holds public images: what they ask for, and what the small one finds offline."""

import pytest

from bench.engines.run import prepare, run
from leaderboards.evidence.question import questions
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule

LEARNED = {"posterior_mean", "black_box_decoder", "informed_matching"}
DIGITS = 'grid.dataset={name="digits",size=32}'


@pytest.mark.parametrize(("preset", "overrides"), [("public-images", [DIGITS]), ("public-images-small", [])])
def test_every_learned_attack_meets_every_defense_with_its_floors_and_nothing_is_skipped(preset, overrides):
    plan = prepare(preset, overrides=overrides)[3]
    assert not [cell.skip for cell in plan.cells if cell.skip]
    assert all(cell.threat.public and cell.threat.defense_known for cell in plan.cells)
    defenses = {cell.defense for cell in plan.cells}
    for defense in defenses:
        own = [cell for cell in plan.cells if cell.defense == defense]
        assert {cell.attack.name for cell in own if not cell.control} == LEARNED
        assert {cell.repeats.attack.name for cell in own if cell.repeats is not None} == LEARNED
        assert "class_mean" in {cell.attack.name for cell in own}
    assert {"none", "zeros"} < {parts[0].name for parts in defenses}


@pytest.mark.slow
def test_the_small_preset_tells_what_leaks_from_what_a_class_looks_like(tmp_path):
    done = run("public-images-small", output=tmp_path / "run", overrides=["engine.threads=1"])
    assert done.failed == 0, done.counts()
    frame = done.frame()
    standings = ranking(questions(frame), RankingRule(), costs_of(done.store.jobs_frame()))
    gains = {own.defense: own.finished["ssim"].mean for own in standings}
    assert gains["zeros"] < 0.01
    assert gains["none"] > 0.25
    assert gains["gradient_pruning(ratio=0.99)"] > 0.2
    assert gains["zeros"] + 0.03 < gains["dp_sgd(noise_multiplier=0.1)"] < gains["none"] - 0.05
    answers = frame[frame["attack_name"] == "same_class"].groupby("defense")[["ssim", "held_out_ssim"]].mean()
    gap = answers["held_out_ssim"] - answers["ssim"]
    assert gap["none"] > 0.25, "the attack works on clients of its own"
    assert abs(gap["zeros"]) < 0.1
