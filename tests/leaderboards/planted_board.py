"""The planted defenses on a board of rules 2: the rank of each, its verdicts, and whatever exposes it.

As a program it prints that table at any size; CONTRIBUTING.md has the command.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bench.conformance import test_rules
from bench.conformance.cases import Subject
from bench.conformance.findings import Broken, NotApplicable
from bench.conformance.suite import RULES
from bench.grid.config import Config, load_config
from bench.grid.reading import GridText
from bench.plan.plan import make_plan
from bench.registry.registry import Registry
from bench.trial.clients import Clients
from leaderboards.checks.rerun import run_plan
from leaderboards.entries.board import built_in_defenses
from leaderboards.evidence.code_reviews import CodeReview, CodeReviews, Reading
from leaderboards.evidence.question import questions
from leaderboards.ranking.audit import AUDITS
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule

PLANTED = Path(__file__).parents[1] / "plugins" / "planted"
NAMES = tuple(path.stem for path in sorted(PLANTED.glob("*.py")))
CALLS = {
    "call_counter": "call_counter(std=3)",
    "mantissa": "mantissa(std=3)",
    "nonce_offset": "nonce_offset(std=3)",
    "seed_reader": "seed_reader(std=3)",
}
"""Name -> the call under which attacks see noise alone; the others are called without parameters."""
EXPOSED = {
    "call_counter": {"seeds"},
    "false_surrogate": {"prediction"},
    "identity_surrogate": {"residual"},
    "lying_many": {"many"},
    "nonce_offset": {"draws"},
    "seed_reader": {"draws"},
    "steep_sign": {"slopes"},
}
"""Name -> the rules of conformance that it breaks; the others are left to attacks, spot checks and readers."""
PREPARED = ("only_this_board", "only_public")
"""Defenses that are prepared for the weights or images of one board."""
UNREADABLE = ("mantissa",)
"""Defenses that nobody who has read them would vouch for, and that nothing else exposes."""


@dataclass(frozen=True)
class Size:
    """The size of a board: dataset and model as a grid file names them, and the numbers of images and seeds."""

    dataset: str
    model: str
    images: int
    public: int
    seeds: int

    @property
    def rule(self) -> RankingRule:
        """Rules 2 for a board of this size."""
        return RankingRule(minimum_images=self.images, minimum_seeds=self.seeds, required=AUDITS)

    def config(self, defenses: Sequence[str], registry: Registry) -> Config:
        """The grid of the board's attacks against these defenses."""
        seeds = json.dumps(list(range(self.seeds)))
        text = f"""
[grid]
dataset = {self.dataset}
models = [{self.model}]
images = {self.images}
public = {self.public}
seeds = {seeds}
attacks = {json.dumps(AUDITS)}
defenses = {json.dumps(list(defenses))}
threat = {{ labels = "known", defense_known = true, public = true }}

[engine]
execution = "eager"
threads = 1
"""
        return load_config(GridText("planted", text, "planted"), (), registry)


TINY = Size('{ name = "digits", size = 12 }', '{ name = "mlp", hidden = [[8]] }', images=24, public=240, seeds=1)
"""Seconds a defense."""
WHOLE = Size('"fashion-mnist"', '"lenet-zhu"', images=100, public=10_000, seeds=3)
"""An hour or more."""


def attacked(
    size: Size, defenses: Sequence[str], registry: Registry, folder: Path, left_out: Collection[str] = ()
) -> pd.DataFrame:
    """Results of the board's attacks, as the store yields them; `left_out` names floors that are not made."""
    with closing(Clients(registry)) as clients:
        plan = make_plan(size.config(defenses, registry), registry, clients)
        plan = replace(plan, cells=tuple(own for own in plan.cells if own.attack.name not in left_out))
        return run_plan(plan, clients, registry, folder, lambda title: None).frame()


def standings(frame: pd.DataFrame, rule: RankingRule) -> dict[str, Standing]:
    """The standing of each defense by its name, "none" among them."""
    return {own.evidence.row["defense_name"]: own for own in ranking(questions(frame), rule, RunCosts())}


def is_above(defense: Standing, other: Standing) -> bool:
    """True if the first ranks above the second, which has a rank."""
    assert other.rank is not None, other.unranked
    return defense.rank is not None and defense.rank.lowest < other.rank.lowest


def reviewed(frame: pd.DataFrame, broken: Collection[str] = (), outdone: Collection[str] = ()) -> CodeReviews:
    """Reviews of careless readers, who vouch for all plugins but the `UNREADABLE`.

    `broken` are the names of plugins that did not pass the conformance suite at the re-run, `outdone` of those that a
    spot check outdid.
    """
    found = {}
    for label, name in dict(zip(frame["defense"], frame["defense_name"], strict=True)).items():
        reading = None if name in UNREADABLE else Reading("Ada", "Looks fine to me.")
        found[label] = CodeReview(reading, conforms=name not in broken, outdone=name in outdone)
    return CodeReviews(built_in_defenses(), entries=found)


def broken_rules(subject: Subject) -> set[str]:
    """The rules of conformance that a planted plugin breaks.

    A grid of it, which takes as long as all other rules, is not asked for.
    """
    broken = set()
    for rule in RULES["defense"]:
        if rule.name != "run":
            try:
                test_rules.test_rule(rule, subject)
            except Broken:
                broken.add(rule.name)
            except NotApplicable:
                pass
    return broken
