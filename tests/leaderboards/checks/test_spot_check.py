"""Spot checks expose defenses that protect the board's own weights or images alone, and repeat by their seed."""

from __future__ import annotations

import hashlib
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctoring import plan_once
from tiny_board import PICTURES, PUBLIC
from tiny_board import PLUGIN as SIGNS
from torch import Tensor

from bench.data.dataset import digest_of
from bench.errors import ConfigurationError
from bench.grid.config import Config, load_config
from bench.grid.reading import GridText
from bench.plan.plan import make_plan
from bench.price import jobs
from bench.price.federated import FederatedWeights
from bench.price.jobs import trained_weights
from bench.registry.registry import Registry
from bench.store.tensors import state_of
from bench.trial.clients import Clients
from leaderboards.checks import spot_check as spot
from leaderboards.checks.rerun import run_plan
from leaderboards.checks.spot_check import DrawnGain, attacked_images, drawn_gain, gain_of_entry, spot_check
from leaderboards.entries.entry import Entry, read_entry
from leaderboards.entries.reviews import SpotCheck
from leaderboards.evidence.question import questions
from leaderboards.ranking.audit import strongest_gain
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.intervals import Summary

PLANTED = Path(__file__).parents[2] / "plugins" / "planted"
GRID = """
[grid]
dataset = { name = "digits", size = 16 }
models = [{ name = "mlp", hidden = [[4]] }]
images = 20
public = 100
attacks = ["black_box_decoder"]
defenses = ["%s"]
threat = { labels = "known", defense_known = true, public = true }
[engine]
execution = "eager"
threads = 1
"""


def at_hand(name: str) -> Registry:
    """The planted plugin; its clients are computed in this process: forks are no matter here, and take seconds."""
    found = Registry([PLANTED / f"{name}.py"])
    found.foreign = lambda kind, names: []
    return found


def known_to_the_author(name: str, folder: Path) -> str:
    """The planted plugin's call, with what a board shows its author: the weights, or the public images."""
    registry = Registry()
    with closing(Clients(registry)) as clients:
        setting = (
            make_plan(load_config(GridText("g", GRID % "none", "g"), (), registry), registry, clients).cells[0].setting
        )
        if name == "only_this_board":
            weights = hashlib.sha256()
            for p in clients.model(setting, 0)[0].parameters():
                weights.update(p.detach().contiguous().numpy().tobytes())
            return f"only_this_board(digest='{weights.hexdigest()}')"
        public, held_out = clients.public(setting), clients.held_out(setting)
        assert public is not None
        assert held_out is not None
        images = [*public.images, *held_out.pixels]
    listed = folder / "listed"
    listed.write_text("\n".join(hashlib.sha256(own.contiguous().numpy().tobytes()).hexdigest() for own in images))
    return f"only_public(listed='{listed}')"


def on_the_board(config: Config, registry: Registry, folder: Path) -> Summary:
    """The decoder's gain on the board's own weights and images."""
    with closing(Clients(registry)) as clients:
        plan = make_plan(config, registry, clients)
        # The descent of this floor takes seconds, and it is none of the decoder's.
        plan = replace(plan, cells=tuple(own for own in plan.cells if own.attack.name != "prior_only"))
        frame = run_plan(plan, clients, registry, folder, lambda title: None).frame()
    [question] = questions(frame)
    [evidence] = question.defenses
    gain = strongest_gain([own for own in evidence.of_images if own.name == spot.DECODER], evidence.groups)
    assert gain is not None
    interval = gain.interval()
    assert interval is not None
    return Summary(gain.mean, np.nan, 20, 20, interval.low, interval.high)


@pytest.mark.parametrize("name", ["only_this_board", "only_public"])
def test_a_defense_that_treats_the_board_otherwise_gives_more_away_in_a_spot_check(name, tmp_path):
    call, registry = known_to_the_author(name, tmp_path), at_hand(name)
    config = load_config(GridText("g", GRID % call, "g"), (), registry)
    shown = on_the_board(config, registry, tmp_path / "run")
    assert shown.high < 0.02
    with closing(Clients(registry)) as clients:
        cell = next(own for own in make_plan(config, registry, clients).cells if not own.control)
        drawn = drawn_gain(config, cell.defense, cell, registry, random.Random(0), lambda title: None)
    figures = {"gain": drawn.gain.mean, "low": drawn.gain.low, "entry_gain": shown.mean, "entry_high": shown.high}
    assert SpotCheck(defense=call, seed=0, weights=drawn.weights, images=drawn.images, **figures).outdone
    assert (drawn.weights, drawn.images) == ("untrained", 20)


def attacked_state(monkeypatch) -> dict[str, Tensor]:
    """Holds, once a spot check has run, the state of the model that its attacks saw."""
    seen: dict[str, Tensor] = {}

    def watched(plan, clients, *given):
        for cell in plan.cells:
            seen.update(state_of(clients.model(cell.setting, cell.seed)[0]))
        return run_plan(plan, clients, *given)

    monkeypatch.setattr(spot, "run_plan", watched)
    return seen


def test_attacked_are_the_weights_of_a_random_round_of_own_training_where_the_board_trains(monkeypatch):
    registry, made = at_hand("tiny_scale"), []
    text = (GRID % "tiny_scale") + "[utility]\nrounds = 5\nclients = 5\n"
    config, said = load_config(GridText("g", text, "g"), (), registry), []
    seen = attacked_state(monkeypatch)
    monkeypatch.setattr(jobs, "trained_weights", lambda *given: made.append(trained_weights(*given)) or made[0])
    with closing(Clients(registry)) as clients:
        cell = next(own for own in make_plan(config, registry, clients).cells if not own.control)
        drawn = drawn_gain(config, cell.defense, cell, registry, random.Random(0), said.append)
    assert drawn.weights in {f"after {rounds} rounds of its own training" for rounds in range(1, 6)}
    assert said == [f"weights of the spot check: {drawn.weights}"]
    [trained] = made
    assert seen.keys() == trained.keys()
    assert all(torch.equal(seen[name], own) for name, own in trained.items())


def test_no_weights_of_a_spot_check_have_seen_its_public_images(monkeypatch):
    registry, trained, public = at_hand("tiny_scale"), [], []
    text = (GRID % "tiny_scale") + "[utility]\nrounds = 1\nclients = 1000\n"
    config = load_config(GridText("g", text, "g"), (), registry)

    def watched(plan, clients, *given):
        setting = plan.cells[0].setting
        public.extend([*clients.public(setting).images, *clients.held_out(setting).pixels])
        raise ConfigurationError("nothing is attacked")

    def training(task, params, chain, data, rounds, *given, **named):
        trained.extend(data[0])
        # The half has fewer clients than the board's rounds.
        assert rounds.clients == rounds.population == len(data[0]) < 1000
        return FederatedWeights(params, None)

    monkeypatch.setattr(spot, "run_plan", watched)
    monkeypatch.setattr(jobs, "train_federated", training)
    with closing(Clients(registry)) as clients:
        cell = next(own for own in make_plan(config, registry, clients).cells if not own.control)
    with pytest.raises(ConfigurationError, match="nothing is attacked"):
        drawn_gain(config, cell.defense, cell, registry, random.Random(0), lambda title: None)
    known = {digest_of(image) for image in trained}
    assert len(known) > 100
    assert len(public) > 100
    assert not [image for image in public if digest_of(image) in known]


@pytest.mark.parametrize(
    ("attacked", "there", "of_client", "images", "own"),
    [
        (100, 10_000, 1, 100, False),
        (4, 100, 1, 20, False),
        (4, 100, 8, 40, False),
        (100, 150, 1, 50, False),
        (96, 140, 8, 40, False),
        (20, 20, 1, 20, True),
        (100, 119, 1, 100, True),
    ],
)
def test_a_spot_check_attacks_the_board_s_own_images_only_where_too_few_others_are_left_and_says_so(
    attacked, there, of_client, images, own
):
    assert attacked_images(attacked, there, of_client) == (images, own)


@pytest.mark.parametrize(("low", "outdone"), [(0.15, False), (0.26, True)])
def test_a_spot_check_outdoes_an_entry_by_more_than_both_intervals_and_a_margin(low, outdone):
    figures = {"gain": 0.4, "low": low, "entry_gain": 0.1, "entry_high": 0.2}
    assert SpotCheck(defense="p", seed=0, weights="untrained", images=20, **figures).outdone == outdone


def test_a_spot_check_is_drawn_from_its_seed_and_keeps_what_the_entry_shows(tiny, monkeypatch):
    entry, registry = read_entry(tiny / PUBLIC / "pairs"), Registry()
    monkeypatch.setattr(registry, "foreign", lambda kind, names: [name for name in names if name == "larger_batch"])
    asked = []

    def drawn(config, chain, cell, own, rng, on_start):
        asked.append((chain[0].name, cell.threat.public, cell.control, rng.random()))
        return DrawnGain(Summary(0.9, np.nan, 20, 20, 0.8, 1.0), "untrained", 20, own_images=True)

    monkeypatch.setattr(spot, "drawn_gain", drawn)
    plan = plan_once(PUBLIC, entry, Registry())
    rule = RankingRule(minimum_images=1)
    first, again, fresh = (
        spot_check(plan, entry, registry, rule, lambda title: None, seed)[0] for seed in (7, 7, None)
    )
    assert first == again
    assert first.own_images
    assert (first.seed, first.defense, first.gain, first.low) == (7, "larger_batch(examples=2)", 0.9, 0.8)
    assert first.entry_gain <= first.entry_high < 1
    assert asked[0] == asked[1] != asked[2]
    assert asked[0][:3] == ("larger_batch", True, False)
    assert fresh.seed != 7


def with_more_under_other_weights(entry: Entry) -> Entry:
    """The entry with each cell once more, of weights trained for an epoch, under which attacks gain .4 SSIM more."""
    more = []
    for cell in entry.cells:
        assert cell.columns is not None
        ssim = cell.columns.ssim
        if ssim is not None and not cell.identity.control:
            ssim = [0.4 + own for own in ssim]
        identity = cell.identity.model_copy(update={"weights": "epochs=1"})
        columns = cell.columns.model_copy(update={"ssim": ssim})
        more.append(cell.model_copy(update={"identity": identity, "columns": columns}))
    return replace(entry, cells=(*entry.cells, *more))


def test_what_a_defense_gives_away_under_some_weights_is_no_excuse_for_what_it_hides_under_others(tiny):
    entry, rule, defense = (
        read_entry(tiny / PUBLIC / "pairs"),
        RankingRule(minimum_images=1),
        "larger_batch(examples=2)",
    )
    hidden = next(own.identity.model_dump() for own in entry.cells if own.identity.defense == defense)
    given = hidden | {"weights": "epochs=1"}
    both = with_more_under_other_weights(entry)

    def shown(cell, of_any_weights):
        return gain_of_entry(both, defense, cell, rule, of_any_weights=of_any_weights)

    alone = gain_of_entry(entry, defense, hidden, rule, of_any_weights=False)
    assert shown(hidden, False) == alone
    assert shown(given, False).mean > alone.mean + 0.2
    assert shown(given, False).high > alone.high + 0.2
    # After own training no weights of the board are those of the spot check.
    assert shown(hidden, True) == shown(given, True) == alone
    with pytest.raises(ConfigurationError, match="no gain to compare with"):
        shown(hidden | {"labels": "unknown"}, True)


def test_weights_are_made_like_the_cell_s_from_another_seed_where_the_board_trains_nobody(monkeypatch):
    registry = at_hand("tiny_scale")
    text = (GRID % "tiny_scale").replace("images = 20", "images = 20\nweights = [1]")
    config, seen = load_config(GridText("g", text, "g"), (), registry), attacked_state(monkeypatch)
    with closing(Clients(registry)) as clients:
        cell = next(own for own in make_plan(config, registry, clients).cells if not own.control)
        drawn = drawn_gain(config, cell.defense, cell, registry, random.Random(0), lambda title: None)
        assert cell.setting.weights.epochs == 1
        board = state_of(clients.architecture(cell.setting, cell.seed))
    assert drawn.weights == "epochs=1"
    assert any(not torch.equal(seen[name], own) for name, own in board.items())


def test_what_is_built_in_or_meets_no_public_images_is_not_spot_checked(tiny):
    for board, name, plugins in ((PUBLIC, "pairs", []), (PICTURES, "signs", [SIGNS])):
        entry, registry = read_entry(tiny / board / name), Registry(plugins)
        plan = plan_once(board, entry, registry)
        assert spot_check(plan, entry, registry, RankingRule(), lambda title: None) == ()
