"""The whole way from clients to ranks: a defense that hides the images in its update must come last."""

from pathlib import Path

import leakboard
from leaderboards.evidence.question import questions
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule

PLUGINS = Path(__file__).parents[2] / "plugins"
GRID = """
[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 12
attacks = ["inverting_gradients(iterations=60, tv_weight=0.01)", "leak_reader"]
defenses = ["none", "planted_leak", "gaussian_noise(std=1.0)"]

[engine]
threads = 1
execution = "eager"
"""


def test_a_planted_leak_ranks_last(tmp_path):
    grid = tmp_path / "leak.toml"
    grid.write_text(GRID)
    plugins = [PLUGINS / "planted_leak.py", PLUGINS / "leak_reader.py"]
    frame = leakboard.run(grid, output=tmp_path / "run", plugins=plugins).frame()
    # So few iterations leave the undefended attack underpowered, and what is underpowered ranks above nobody.
    rule = RankingRule(rules=1, required=("inverting_gradients",), minimum_images=12, underpowered_share=1.0)
    found = {own.evidence.row["defense_name"]: own for own in ranking(questions(frame), rule, RunCosts())}
    ranks = {name: own.rank.lowest for name, own in found.items() if own.rank is not None}
    assert ranks == {"none": 2, "planted_leak": 3, "gaussian_noise": 1}
    assert found["planted_leak"].identified == 1
    assert found["planted_leak"].of_undefended[0] > 1
    # What reads the leak gets nothing from an undefended client: alone it would be evidence of no protection.
    alone = ranking(questions(frame), RankingRule(rules=1, required=("leak_reader",), minimum_images=12), RunCosts())
    assert alone
    assert all(own.rank is None and own.unranked.startswith("invalid: leak_reader") for own in alone)
