"""A defense attacked as a black box on weights and images that nobody knew when its entry was made."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.columns import QUESTION
from bench.errors import ConfigurationError
from bench.grid.config import Config
from bench.grid.sections import Threat, Weights
from bench.registry.specs import ChainSpec, chain_label
from leaderboards.checks.expected import Expected, chain_of
from leaderboards.checks.rerun import run_plan
from leaderboards.entries.entry import Entry, image_rows
from leaderboards.entries.reviews import SpotCheck
from leaderboards.evidence.question import questions
from leaderboards.evidence.record import HEADLINE
from leaderboards.ranking.audit import DECODER, strongest_gain
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.intervals import Summary
from leaderboards.untrusted.refusals import shown

if TYPE_CHECKING:
    from bench.grid.cells import Cell
    from bench.registry.registry import Registry

LEAST_ATTACKED, LEAST_CLIENTS = 20, 5
"""Images of a spot check, and clients behind them, at least: fewer have no interval to speak of."""
SEEDS = 2**31
"""Seeds are drawn below this number."""


def spot_check(
    plan: Expected,
    entry: Entry,
    registry: Registry,
    rule: RankingRule,
    on_start: Callable[[str], None],
    seed: int | None = None,
) -> tuple[SpotCheck, ...]:
    """One defense of the entry's plugin attacked as a black box where its author could not prepare it, or nothing.

    Nothing where all is built in, or the board grants no public images. `seed` repeats a check; without one the
    operating system draws it now. Raises ConfigurationError where the attack has no result.
    """
    from bench.plan.description import described

    chains = {cell.identity.defense: chain_of(cell.identity) for cell in entry.cells}
    named = {label: [part.name for part in parts] for label, parts in chains.items()}
    foreign = sorted(label for label, names in named.items() if registry.foreign("defense", names))
    if not foreign:
        return ()
    drawn = random.SystemRandom().randrange(SEEDS) if seed is None else seed
    rng = random.Random(drawn)
    label = rng.choice(foreign)
    chain = tuple(registry.resolve("defense", part) for part in chains[label])
    cells = [cell for cell in plan.plan.cells if chain_label(cell.defense) == label and not cell.control]
    cells = [cell for cell in cells if cell.threat.public and cell.threat.defense_known]
    if not cells:
        return ()
    on_start(f"spot check of {label}, seed {drawn}")
    cell = rng.choice(cells)
    found = drawn_gain(plan.config, chain, cell, registry, rng, on_start)
    trains = plan.config.utility is not None
    shown_gain = gain_of_entry(entry, label, described(cell, plan.plan), rule, of_any_weights=trains)
    figures = {"gain": found.gain.mean, "low": found.gain.low}
    figures |= {"entry_gain": shown_gain.mean, "entry_high": shown_gain.high}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    made = SpotCheck(
        defense=shown(label, 2000),
        seed=drawn,
        weights=found.weights,
        images=found.images,
        own_images=found.own_images,
        **rounded,
    )
    return (made,)


@dataclass(frozen=True)
class DrawnGain:
    """The gain of the black box on what was drawn."""

    gain: Summary
    """Its mean and interval over the images."""
    weights: str
    """The attacked weights, in words."""
    images: int
    own_images: bool = False
    """True if there were too few others, and the board's own images are among the attacked."""


def drawn_gain(
    config: Config,
    chain: ChainSpec,
    cell: Cell,
    registry: Registry,
    rng: random.Random,
    on_start: Callable[[str], None],
) -> DrawnGain:
    """The gain of `black_box_decoder` on a defense in the place of a board's cell, but where `rng` draws.

    The weights are of a random length of the defense's own training where the board trains, else made like the cell's
    from another seed. Attacked are other test images, unless there are fewer than a spot check needs, and the server
    holds other public ones (`bench.data.redrawn`), on which no weights are trained.
    """
    from bench.data.load import load_dataset
    from bench.data.redrawn import redrawn
    from bench.plan.plan import make_plan
    from bench.store.tensors import write_state
    from bench.trial.clients import Clients

    seed, of_images = rng.randrange(SEEDS), rng.randrange(SEEDS)
    elsewhere = lambda name, **where: redrawn(load_dataset(name, **where), config.grid.images, of_images)  # noqa: E731
    weights = cell.setting.weights if config.utility is None else Weights()
    words = weights.label
    with tempfile.TemporaryDirectory() as folder, closing(Clients(registry, elsewhere)) as own:
        count, own_images = attacked_images(config.grid.images, len(own.dataset(cell.setting)), cell.schedule.images)
        drawn = _drawn_config(config, chain, cell, weights, count, registry, seed)
        if config.utility is not None:
            from bench.price.federated import TrainingDiverged
            from bench.price.jobs import trained_weights

            rounds, section = rng.randint(1, config.utility.rounds), config.utility
            words = f"after {rounds} rounds of its own training"
            on_start(f"weights of the spot check: {words}")
            setting, path = make_plan(drawn, registry, own).cells[0].setting, Path(folder) / "weights.safetensors"
            try:
                state = trained_weights(setting, chain, cell.schedule, section, own, seed, rounds)
            except TrainingDiverged as error:
                raise ConfigurationError(f"spot check: {error}") from error
            write_state(path, state, {})
            drawn = _with(drawn, weights=(Weights(checkpoint=str(path)),))
        plan = make_plan(drawn, registry, own)
        # A prior alone is no floor of an attack without one.
        cells = tuple(one for one in plan.cells if one.attack.name != "prior_only")
        frame = run_plan(replace(plan, cells=cells), own, registry, Path(folder) / "run", on_start).frame()
    (question,) = questions(frame)
    (evidence,) = question.defenses
    gain = strongest_gain([one for one in evidence.of_images if one.name == DECODER], evidence.groups)
    interval = None if gain is None else gain.interval()
    if gain is None or interval is None:
        raise ConfigurationError(f"spot check of {chain_label(chain)}: {DECODER} has no gain with an interval")
    images = len(question.images)
    summary = Summary(gain.mean, np.nan, images, images, interval.low, interval.high)
    return DrawnGain(summary, words, images, own_images)


def attacked_images(attacked: int, there: int, of_client: int) -> tuple[int, bool]:
    """The number of images that a spot check attacks, and whether the board's own are among them.

    The board attacks `attacked` of the `there` images of its dataset, `of_client` in each update. Where too few others
    are left for an interval the board's own come after them.
    """
    # Whole clients: as many as the board has, or else the fewest that have an interval.
    least = -(-max(LEAST_ATTACKED, of_client * LEAST_CLIENTS) // of_client) * of_client
    wanted, others = max(attacked, least), there - attacked
    own_images = others < least
    most = there if own_images else others
    return min(wanted, most) // of_client * of_client, own_images


def _drawn_config(
    config: Config, chain: ChainSpec, cell: Cell, weights: Weights, images: int, registry: Registry, seed: int
) -> Config:
    """The board's grid cut down to the decoder, one defense, one model and one threat model, under another seed."""
    ((attack,),) = registry.expand("attack", [DECODER])
    own = next((one for one in config.grid.attacks if one.name == DECODER), attack)
    threat = Threat.model_validate({name: (value,) for name, value in asdict(cell.threat).items()})
    client = config.grid.client.model_copy(update={"mode": (cell.setting.mode,)})
    # Jobs, ranks and expectations are the board's.
    bare = config.model_copy(update={"utility": None, "certificate": None, "expect": None, "board": None})
    return _with(
        bare, models=(cell.setting.model,), weights=(weights,), images=images, seeds=(seed,), attacks=(own,),
        defenses=(chain,), threat=threat, client=client,
    )  # fmt: skip


def _with(config: Config, **keys: Any) -> Config:
    """The config with other keys of its grid."""
    return config.model_copy(update={"grid": config.grid.model_copy(update=keys)})


def gain_of_entry(
    entry: Entry, defense: str, cell: Mapping[str, Any], rule: RankingRule, *, of_any_weights: bool
) -> Summary:
    """The gain that the entry shows of a defense in the question of a cell, with the highest end of its intervals.

    `of_any_weights` asks for the question whose highest end is lowest, among those that differ in weights alone: a
    defense that hides under some weights of a board must not hide behind what it gives away under others. Raises
    ConfigurationError where nothing is shown.
    """
    asked = [name for name in QUESTION if not (of_any_weights and name == "weights")]
    found: list[Summary] = []
    for own in ranking(questions(image_rows([entry])), rule, RunCosts()):
        is_asked = own.defense == defense and all(own.question.row[name] == cell[name] for name in asked)
        if is_asked and not np.isnan(own.shown_gain):
            high = np.nanmax([own.shown_gain, own.finished[HEADLINE].high, own.given_seeds.high])
            found.append(Summary(own.shown_gain, np.nan, 1, 1, np.nan, float(high)))
    if not found:
        raise ConfigurationError(f"spot check of {defense}: the entry shows no gain to compare with")
    return min(found, key=lambda own: own.high)
