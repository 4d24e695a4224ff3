"""The lines of a leaderboard: every figure of a defense as text, beside what it is sorted by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.costs import Price
from leaderboards.ranking.ranking import rule_set_of
from leaderboards.ranking.standing import Rank, Standing
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.site.results import Asked, Results
from leaderboards.site.text import (
    DASH,
    PERCENT,
    POINTS,
    Figure,
    number_figure,
    short_hash,
    significant,
    span,
    verdict_meanings,
)
from leaderboards.statistics.intervals import Summary
from leaderboards.statistics.summary import Row
from leaderboards.tables.exports import verdict_words
from leaderboards.tables.prices import (
    WHOLE_TRAINING,
    attacked_heading,
    attacks_other_releases,
    bound_sign,
    epsilon_text,
    rank_text,
    sees_more_images,
)


@dataclass(frozen=True)
class Bar:
    """An interval as a picture 100 wide, 0 to 1 of SSIM: its ends and its mean."""

    low: str
    high: str
    width: str
    mean: str


@dataclass(frozen=True)
class LeaderboardLine:
    """One defense at one strength, as the leaderboard has it."""

    defense: str
    page: str
    anchor: str
    entry: str
    submitter: str
    state: str
    verdicts: list[str]
    rank: Figure
    gain: Figure
    bar: Bar | None
    figures: Mapping[str, Figure]
    beside: Mapping[str, Figure]
    """Words -> accuracies and epsilons that are not those that the board's rules compare, where they differ."""


def lines(results: Results, asked: Asked, pages: Mapping[str, str]) -> list[LeaderboardLine]:
    """The lines of a question: the ranked by rank, then the others by what they leak; `pages` are those of defenses."""
    found = [_line(results, asked, standing, pages) for standing in results.standings[asked]]
    last = lambda figure: float(figure.sort) if figure.sort else np.inf  # noqa: E731
    return sorted(found, key=lambda line: (last(line.rank), last(line.gain), line.defense))


def why_no_rank(results: Results, asked: Asked, standing: Standing) -> str:
    """The reason for which a defense has no rank; "" if it has one."""
    if standing.rank is not None:
        return ""
    state = results.state(standing.defense)
    if state != "re-run":
        return f"{state}: only entries that have been run again are ranked"
    rule = results.published.board.rule
    barred = standing.verdicts & rule_set_of(rule).unranked
    why = "; ".join(text for verdict, text in verdict_meanings(rule.rules).items() if verdict in barred)
    return results.unranked[asked] or standing.incomplete or why or "no evidence"


def anchor_of(defense: str) -> str:
    """The anchor of a defense on its page."""
    return f"s-{short_hash(defense)}"


def gain_figure(standing: Standing) -> Figure:
    """The SSIM gain with its interval, as a lower bound where it is one."""
    gain = standing.shown_gain
    if np.isnan(gain):
        return Figure(DASH)
    interval, given = (span(own.low, own.high, ".3f") for own in (standing.gain, standing.given_seeds))
    seeds = ", ".join(f"{own:z.3f}" for own in standing.by_seed)
    note = f"{interval} over images and seeds; {given} over images given these seeds; each seed: {seeds}"
    return Figure(f"{bound_sign(standing)}{gain:.3f}", f"{gain:.9g}", interval, note if seeds else "")


def _line(results: Results, asked: Asked, standing: Standing, pages: Mapping[str, str]) -> LeaderboardLine:
    defense = standing.defense
    entry, rule = results.owners[defense], results.published.board.rule
    effort = {"seconds": significant(seconds_of_attacks(results, asked, defense))}
    return LeaderboardLine(
        defense=defense,
        page=pages[defense],
        anchor=anchor_of(defense),
        entry=entry.name,
        submitter=entry.manifest.submitter,
        state=results.state(defense),
        verdicts=verdict_words(standing.verdicts),
        rank=_rank(standing.rank, why_no_rank(results, asked, standing)),
        gain=gain_figure(standing),
        bar=_bar(standing.gain),
        figures=_strongest(results, asked, standing) | _price(standing.price, rule) | _proof(standing, rule) | effort,
        beside=_not_compared(standing.price, rule),
    )


def _rank(rank: Rank | None, reason: str) -> Figure:
    if rank is None:
        return Figure(DASH, "", "", reason)
    low, high = rank.lowest, rank.highest
    text = str(low) if low == high else f"{low}\N{EN DASH}{high}"
    return Figure(text, str(low), "", rank_text(rank))


def _bar(gain: Summary) -> Bar | None:
    low, high, mean = gain.low, gain.high, gain.mean
    if np.isnan([low, high, mean]).any():
        return None
    low, high, mean = (100 * min(max(value, 0.0), 1.0) for value in (low, high, mean))
    return Bar(f"{low:.1f}", f"{high:.1f}", f"{max(high - low, 1.0):.1f}", f"{mean:.1f}")


def _strongest(results: Results, asked: Asked, standing: Standing) -> dict[str, Figure]:
    """Means of the attack that is strongest on most images, and what was identified and found of labels."""
    own = strongest_cell(results, asked, standing) or {"ssim_mean": np.nan, "psnr_db_mean": np.nan}
    return {
        "ssim": number_figure(own["ssim_mean"], ".3f"),
        "psnr_db": number_figure(own["psnr_db_mean"], ".1f"),
        "identified": number_figure(standing.identified, PERCENT),
        "labels_found": number_figure(standing.labels_found, PERCENT),
    }


def strongest_cell(results: Results, asked: Asked, standing: Standing) -> Row | None:
    """The summary of the strongest attack on a defense."""
    faced = results.strongest_of(standing)
    own = None if faced is None else results.summary[asked].get(faced)
    return own if own is not None and own["status"] == "ok" else None


def _price(price: Price, rule: RankingRule) -> dict[str, Figure]:
    equal_images = rule.weighs_equal_images
    accuracy, loss = number_figure(price.reached(equal_images), ".1%"), price.loss(equal_images)
    lost = number_figure(loss.mean, POINTS)
    few = f"of {price.accuracy_seeds} seeds" if 0 < price.accuracy_seeds < LEAST_SEEDS else ""
    why = (price.accuracy_reason or "") if price.was_trained else ""
    interval = span(loss.low, loss.high, POINTS)
    return {
        "accuracy": Figure(accuracy.text, accuracy.sort, "chance" if price.at_chance is True else few, why),
        "lost": Figure(lost.text, lost.sort, interval, why or price.loss_reason(equal_images) or ""),
        "kib": number_figure(price.bytes_sent / 1024, ".1f" if price.bytes_sent < 102_400 else ",.0f"),
        "ms": significant(price.update_ms),
    }


def _not_compared(price: Price, rule: RankingRule) -> dict[str, Figure]:
    """Accuracy and epsilon as the board's rules do not compare them, where that makes a difference."""
    found, images, releases = {}, not rule.weighs_equal_images, not rule.states_attacked_releases
    if sees_more_images([price]):
        loss, words = price.loss(images), "at equal images" if images else "at equal rounds"
        why = price.loss_reason(images) or ""
        found[f"accuracy {words}"] = replace(number_figure(price.reached(images), ".1%"), note=why)
        found[f"points lost {words}"] = replace(
            number_figure(loss.mean, POINTS), beside=span(loss.low, loss.high, POINTS), note=why
        )
    if attacks_other_releases([price]):
        words = attacked_heading([price]) if releases else WHOLE_TRAINING
        found[words] = _epsilon(price, releases)
    return found


def _epsilon(price: Price, of_attacked_releases: bool) -> Figure:
    epsilon = price.stated_epsilon(of_attacked_releases)
    if np.isnan(epsilon):
        return Figure(DASH, "", "", (price.attacked_releases_reason or "") if of_attacked_releases else "")
    return Figure(epsilon_text(epsilon), f"{epsilon:.9g}", f"delta {price.delta:g}")


def _proof(standing: Standing, rule: RankingRule) -> dict[str, Figure]:
    price = standing.price
    if not np.isnan(price.epsilon):
        epsilon = _epsilon(price, rule.states_attacked_releases)
    else:
        is_heuristic = price.is_heuristic and not standing.is_undefended
        epsilon = Figure("heuristic" if is_heuristic else DASH, "", "", price.no_epsilon or "")
    certificate = Figure("broken" if price.certificate_broken else DASH, "", "", price.certificate_reason or "")
    if not np.isnan(price.certificate):
        text = f"{price.certificate_measured:.3f} / {price.certificate:.3f}"
        trials = f"{price.certificate_trials:.0f} trials"
        certificate = Figure(text, f"{price.certificate:.9g}", "broken" if price.certificate_broken else "", trials)
    return {"epsilon": epsilon, "certificate": certificate}


def seconds_of_attacks(results: Results, asked: Asked, defense: str) -> float | None:
    """Seconds of all attacks on the defense, the floors aside."""
    own = [cell for (other, *_), cells in results.cells[asked].items() if other == defense for cell in cells]
    seconds = [cell.seconds for _, cell in own if cell.seconds is not None and not cell.identity.control]
    return sum(seconds) if seconds else None
