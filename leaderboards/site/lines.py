"""The lines of a leaderboard: every figure of a defense as text, beside what it is sorted by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.costs import NOT_MEASURED
from leaderboards.ranking.evidence import granted_text
from leaderboards.ranking.summary import Row
from leaderboards.site.results import Asked, Results
from leaderboards.site.text import ABSENT, PERCENT, POINTS, VERDICTS, Figure, number, short_hash, significant, span
from leaderboards.tables.prices import bound_sign, epsilon_text, rank_text


@dataclass(frozen=True)
class Bar:
    """An interval as a picture 100 wide, 0 to 1 of SSIM: its ends and its mean."""

    low: str
    high: str
    width: str
    mean: str


@dataclass(frozen=True)
class Line:
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


def lines(results: Results, asked: Asked, pages: Mapping[str, str]) -> list[Line]:
    """The lines of a question: the ranked by rank, then the others by what they leak; `pages` are those of defenses."""
    found = [_line(results, asked, row, pages) for row in results.rows[asked]]
    last = lambda figure: float(figure.sort) if figure.sort else np.inf  # noqa: E731
    return sorted(found, key=lambda line: (last(line.rank), last(line.gain), line.defense))


def why_no_rank(results: Results, asked: Asked, row: Row) -> str:
    """Why the row has no rank; "" if it has one."""
    if not pd.isna(row["rank"]):
        return ""
    state = results.state(row["defense"])
    if state != "re-run":
        return f"{state}: only entries that have been run again are ranked"
    broken = "its certificate is broken" if row["certificate_broken"] or "broken" in row["verdicts"] else ""
    return results.unranked[asked] or row["incomplete"] or broken or "no evidence"


def anchor_of(defense: str) -> str:
    """Where a defense stands on its page."""
    return f"s-{short_hash(defense)}"


def gain_figure(row: Row) -> Figure:
    """The SSIM gain with its interval, as a lower bound where it is one."""
    gain = row["ssim_gain"] if not np.isnan(row["ssim_gain"]) else row["ssim_at_least"]
    if np.isnan(gain):
        return Figure(ABSENT)
    interval = span(row["ssim_gain_low"], row["ssim_gain_high"], ".3f")
    return Figure(f"{bound_sign(row)}{gain:.3f}", f"{gain:.9g}", interval)


def _line(results: Results, asked: Asked, row: Row, pages: Mapping[str, str]) -> Line:
    entry = results.owners[row["defense"]]
    reason = why_no_rank(results, asked, row)
    effort = {"seconds": significant(attack_seconds(results, asked, row))}
    rank = Figure(ABSENT, "", "", reason) if reason else Figure(_open_rank(row), str(row["rank"]), "", rank_text(row))
    return Line(
        defense=row["defense"],
        page=pages[row["defense"]],
        anchor=anchor_of(row["defense"]),
        entry=entry.name,
        submitter=entry.manifest.submitter,
        state=results.state(row["defense"]),
        verdicts=[name for name in VERDICTS if name in row["verdicts"]],
        rank=rank,
        gain=gain_figure(row),
        bar=_bar(row),
        figures=_strongest(results, asked, row) | _price(row) | _proof(row) | effort,
    )


def _open_rank(row: Row) -> str:
    low, high = row["rank_low"], row["rank_high"]
    return str(low) if low == high else f"{low}\N{EN DASH}{high}"


def _bar(row: Row) -> Bar | None:
    low, high, mean = row["ssim_gain_low"], row["ssim_gain_high"], row["ssim_gain"]
    if np.isnan([low, high, mean]).any():
        return None
    low, high, mean = (100 * min(max(value, 0.0), 1.0) for value in (low, high, mean))
    return Bar(f"{low:.1f}", f"{high:.1f}", f"{max(high - low, 1.0):.1f}", f"{mean:.1f}")


def _strongest(results: Results, asked: Asked, row: Row) -> dict[str, Figure]:
    """Means of the attack that is strongest on most images, and what was identified and found of labels."""
    own = strongest_cell(results, asked, row) or {"ssim_mean": np.nan, "psnr_db_mean": np.nan}
    return {
        "ssim": number(own["ssim_mean"], ".3f"),
        "psnr_db": number(own["psnr_db_mean"], ".1f"),
        "identified": number(row["identified"], PERCENT),
        "labels_found": number(row["labels_found"], PERCENT),
    }


def strongest_cell(results: Results, asked: Asked, row: Row) -> Row | None:
    """The summary of the strongest attack on the row's defense."""
    for (defense, attack, *granted), own in results.summary[asked].items():
        if defense == row["defense"] and attack + granted_text(*granted) == row["strongest"]:
            return own if own["status"] == "ok" else None
    return None


def _price(row: Row) -> dict[str, Figure]:
    accuracy, lost = number(row["accuracy"], ".1%"), number(row["accuracy_lost"], POINTS)
    few = f"of {row['accuracy_seeds']} seeds" if 0 < row["accuracy_seeds"] < LEAST_SEEDS else ""
    why = "" if row["accuracy_reason"] in (None, NOT_MEASURED) else row["accuracy_reason"]
    interval = span(row["accuracy_lost_low"], row["accuracy_lost_high"], POINTS)
    return {
        "accuracy": Figure(accuracy.text, accuracy.sort, "chance" if row["at_chance"] is True else few, why),
        "lost": Figure(lost.text, lost.sort, interval, why or row["accuracy_lost_reason"] or ""),
        "kib": number(row["bytes_sent"] / 1024, ".1f" if row["bytes_sent"] < 102_400 else ",.0f"),
        "ms": significant(row["update_ms"]),
    }


def _proof(row: Row) -> dict[str, Figure]:
    why = row["no_epsilon"] or ""
    if not np.isnan(row["epsilon"]):
        epsilon = Figure(epsilon_text(row["epsilon"]), f"{row['epsilon']:.9g}", f"delta {row['delta']:g}")
    else:
        is_heuristic = why.startswith("heuristic") and row["defense_name"] != "none"
        epsilon = Figure("heuristic" if is_heuristic else ABSENT, "", "", why)
    certificate = Figure("broken" if row["certificate_broken"] else ABSENT, "", "", row["certificate_reason"] or "")
    if not np.isnan(row["certificate"]):
        text = f"{row['certificate_measured']:.3f} / {row['certificate']:.3f}"
        trials = f"{row['certificate_trials']:.0f} trials"
        certificate = Figure(text, f"{row['certificate']:.9g}", "broken" if row["certificate_broken"] else "", trials)
    return {"epsilon": epsilon, "certificate": certificate}


def attack_seconds(results: Results, asked: Asked, row: Row) -> float | None:
    """Seconds of all attacks on the row's defense, the floors aside."""
    own = [cell for (defense, *_), cells in results.cells[asked].items() if defense == row["defense"] for cell in cells]
    seconds = [cell.seconds for _, cell in own if cell.seconds is not None and not cell.identity.control]
    return sum(seconds) if seconds else None
