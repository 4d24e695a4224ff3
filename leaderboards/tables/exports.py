"""Standings and prices as rows and frames for other programs, with one name a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from bench.columns import OF_ONE_GRID, QUESTION, column_names
from leaderboards.evidence.record import HEADLINE, LEAKAGE_METRICS, variant_text
from leaderboards.ranking.budgets import BUDGETS, Affordable
from leaderboards.ranking.costs import PRICE_COLUMNS, Price, RunCosts
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import Verdict
from leaderboards.statistics.intervals import Summary
from leaderboards.statistics.summary import Row, records

VERDICTS = {
    Verdict.INCOMPLETE: "incomplete",
    Verdict.UNREAD: "unread",
    Verdict.UNAUDITED: "unaudited",
    Verdict.BLIND: "blind",
    Verdict.INCONSISTENT: "inconsistent",
    Verdict.UNDERPOWERED: "underpowered",
    Verdict.BROKEN_CERTIFICATE: "broken certificate",
    Verdict.SURROGATE_BEATEN: "surrogate beaten",
}
IDENTITY = sorted(column_names("defense"), key=lambda name: name in OF_ONE_GRID) + column_names("schedule")
"""A defense, then its place in the grid and the client's work."""
WHOLE_NUMBERS = ["rank", "rank_low", "rank_high", "incomparable", "n", "units"]


def verdict_words(verdicts: Iterable[Verdict]) -> list[str]:
    """The verdicts in words, in their order."""
    return [word for verdict, word in VERDICTS.items() if verdict in verdicts]


def standing_row(standing: Standing) -> Row:
    """Every figure of a standing under its name, null where it is not known.

    `ssim_gain`, `ssim_gain_low` and `ssim_gain_high` are mean and 95% interval of the gain, `ssim_at_least` what
    finished attacks show of it, and so for `identified`; `rank_low` to `rank_high` are the ranks that are left open.
    By rules 2 that interval is over images and seeds; `ssim_gain_low_given_seeds` and `ssim_gain_high_given_seeds` are
    that over images alone, and `ssim_gain_by_seed` has the gain of each seed, as JSON.
    """
    rank, row = standing.rank, {name: standing.question.row[name] for name in QUESTION}
    row |= {name: standing.evidence.row[name] for name in IDENTITY}
    units = standing.finished[HEADLINE].units
    row |= {
        "rank": pd.NA if rank is None else rank.lowest,
        "rank_low": pd.NA if rank is None else rank.lowest,
        "rank_high": pd.NA if rank is None else rank.highest,
        "incomparable": pd.NA if standing.incomparable is None else standing.incomparable,
        "n": len(standing.question.images),
        "units": units or pd.NA,
        "unranked": standing.unranked or None,
        "incomplete": standing.incomplete or None,
        "verdicts": ", ".join(verdict_words(standing.verdicts)),
        "strongest": None if standing.strongest is None else variant_text(standing.strongest),
    }
    for metric in LEAKAGE_METRICS:
        row |= _interval(f"{metric}_gain", standing.gain_in(metric))
        row[f"{metric}_at_least"] = standing.finished[metric].mean
    ratio = dict(zip(_ends("of_undefended"), standing.of_undefended or (np.nan,) * 3, strict=True))
    row |= _interval("ssim_excess", standing.excess) | {"chance": standing.chance} | ratio
    low, high = standing.given_seeds.low, standing.given_seeds.high
    row |= {"ssim_gain_low_given_seeds": low, "ssim_gain_high_given_seeds": high, "worst_case": standing.worst_case}
    row["ssim_gain_by_seed"] = json.dumps(standing.by_seed) if standing.by_seed else None
    shares = ("not_adapting", "adapting", "underpowered", "identified", "labels_found")
    return row | {name: getattr(standing, name) for name in shares} | price_row(standing.price)


def standings_frame(standings: Sequence[Standing]) -> pd.DataFrame:
    """One row per standing."""
    rows = [standing_row(standing) for standing in standings]
    frame = pd.DataFrame(rows, columns=None if rows else [*QUESTION, *IDENTITY, *WHOLE_NUMBERS])
    # Columns of text without a value for some rows would turn null into a number.
    texts = [name for name in frame if any(row[name] is None for row in rows)]
    words = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in texts}
    return frame.astype(dict.fromkeys(WHOLE_NUMBERS, "Int64")).assign(**words)


def with_budgets(frame: pd.DataFrame, affordable: Sequence[Affordable]) -> pd.DataFrame:
    """A frame of standings, each with its ranks at budgets: `rank_at_3`, and lowest and highest, at 3 points.

    They are null for a defense that another strength stands for, or that no budget affords.
    """
    for budget in BUDGETS:
        columns, own = _ends(f"rank_at_{budget:g}"), {}
        for one in affordable:
            if one.budget == budget and one.standing is not None and (rank := one.standing.rank) is not None:
                own[(*_key(one.question.row), one.standing.defense)] = (rank.lowest, rank.lowest, rank.highest)
        found = [own.get((*_key(row), row["defense"]), (pd.NA,) * 3) for row in records(frame)]
        ranks = pd.DataFrame(found, frame.index, columns, dtype="Int64")
        frame = pd.concat([frame, ranks], axis=1)
    return frame


def price_row(price: Price) -> Row:
    """Every figure of a price under its name."""
    return {name: getattr(price, name) for name in PRICE_COLUMNS}


def priced(rows: pd.DataFrame, costs: RunCosts) -> pd.DataFrame:
    """The rows of a summary, each with what is known of its defense behind it."""
    known = pd.DataFrame([price_row(costs.of(row)) for row in records(rows)], rows.index, PRICE_COLUMNS)
    return pd.concat([rows, known], axis=1)


def _interval(name: str, summary: Summary) -> Row:
    return dict(zip(_ends(name), (summary.mean, summary.low, summary.high), strict=True))


def _ends(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _key(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in QUESTION)
