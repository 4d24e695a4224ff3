"""The planted defenses on a board of rules 2: the rank of each, its verdicts, and whatever exposes it.

As a program it prints that table, of all of them or of those that are named, on a board of any size:
`PYTHONPATH=. python tests/leaderboards/planted_board.py [NAME]... [--images N] [--seeds N]`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
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
from leaderboards.checks.spot_check import drawn_gain
from leaderboards.entries.board import built_in_defenses, proving_defenses
from leaderboards.entries.reviews import SpotCheck
from leaderboards.evidence.code_reviews import CodeReview, CodeReviews, Reading
from leaderboards.evidence.question import questions
from leaderboards.ranking.audit import AUDITS
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict

PLANTED = Path(__file__).parents[1] / "plugins" / "planted"
NAMES = tuple(path.stem for path in sorted(PLANTED.glob("*.py")))
CALLS = {
    "call_counter": "call_counter(std=3)",
    "mantissa": "mantissa(std=3)",
    "nonce_offset": "nonce_offset(std=3)",
    "seed_reader": "seed_reader(std=3)",
}
"""Name -> the call under which attacks see noise alone; the others are called without parameters."""
GIVEN = {"only_this_board": "only_this_board(digest='no board')", "only_public": "only_public(listed='/dev/null')"}
"""Name -> the call of a plugin that is prepared for nothing."""
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
    return CodeReviews(built_in_defenses(), proving_defenses(), entries=found)


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


def prepared(size: Size, folder: Path) -> dict[str, str]:
    """The calls of the `PREPARED`, with what a board of this size shows their author: its weights and public images."""
    registry = Registry()
    with closing(Clients(registry)) as clients:
        setting = make_plan(size.config(["none"], registry), registry, clients).cells[0].setting
        weights = [clients.model(setting, seed)[0].parameters() for seed in range(size.seeds)]
        public, held_out = clients.public(setting), clients.held_out(setting)
    assert public is not None
    assert held_out is not None
    digests = [_sha256(*(p.detach().float().contiguous().numpy().tobytes() for p in own)) for own in weights]
    images = [_sha256(image.contiguous().numpy().tobytes()) for image in (*public.images, *held_out.pixels)]
    listed = folder / "listed"
    listed.write_text("\n".join(images))
    return {
        "only_this_board": f"only_this_board(digest='{','.join(digests)}')",
        "only_public": f"only_public(listed='{listed}')",
    }


def _sha256(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def is_outdone(size: Size, call: str, shown: Standing, registry: Registry) -> bool:
    """True if a spot check with seed 0 gains more than the board shows."""
    config = size.config([call], registry)
    with closing(Clients(registry)) as clients:
        cell = next(own for own in make_plan(config, registry, clients).cells if not own.control)
        found = drawn_gain(config, cell.defense, cell, registry, random.Random(0), lambda title: None)
    figures = {"gain": found.gain.mean, "low": found.gain.low}
    figures |= {"entry_gain": shown.gain.mean, "entry_high": shown.given_seeds.high}
    return SpotCheck(defense=call, seed=0, weights=found.weights, images=found.images, **figures).outdone


def table(size: Size, names: Sequence[str]) -> str:
    """The gain, rank and verdicts of `none` and of these planted defenses, and what exposes each, as Markdown."""
    registry = Registry([PLANTED / f"{name}.py" for name in names])
    with tempfile.TemporaryDirectory() as folder:
        ready = prepared(size, Path(folder)) if set(names) & set(PREPARED) else {}
        calls = {name: ready.get(name) or CALLS.get(name, name) for name in names}
        frame = attacked(size, ["none", *calls.values()], registry, Path(folder) / "run")
        by_attacks = standings(frame, size.rule)
        outdone = {name for name, call in calls.items() if is_outdone(size, call, by_attacks[name], registry)}
    broken = {}
    for name in names:
        chain, *_ = registry.expand("defense", [GIVEN.get(name, name)])
        broken[name] = broken_rules(Subject("defense", name, registry.build("defense", chain[0]), registry))
    failed = [name for name, rules in broken.items() if rules]
    found = standings(frame, replace(size.rule, reviews=reviewed(frame, failed, outdone)))
    rows = ["| Defense | Gain, SSIM | Given these seeds | Rank | Verdicts | Exposed by |", "|:--|--:|:--|:--|:--|:--|"]
    for name, own in found.items():
        exposed = [f"conformance: {rule}" for rule in sorted(broken.get(name, ()))]
        exposed += ["a spot check"] if name in outdone else []
        exposed += ["a reader"] if Verdict.UNREAD in own.verdicts else []
        exposed += ["attacks"] if name in names and not is_above(by_attacks[name], by_attacks["none"]) else []
        interval, rank = f"[{own.given_seeds.low:.3f}, {own.given_seeds.high:.3f}]", own.rank and own.rank.lowest
        verdicts = ", ".join(sorted(verdict.name.lower() for verdict in own.verdicts))
        cells = [name, f"{own.gain.mean:.3f}", interval, str(rank or "-"), verdicts, "; ".join(exposed)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    options.add_argument("--images", type=int, default=WHOLE.images)
    options.add_argument("--seeds", type=int, default=WHOLE.seeds)
    options.add_argument("--public", type=int, default=WHOLE.public)
    given = options.parse_args()
    print(table(replace(WHOLE, images=given.images, seeds=given.seeds, public=given.public), given.names))
