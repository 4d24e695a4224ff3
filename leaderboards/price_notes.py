"""How the figures of cost and proof are to be read, and under what conditions they were measured."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from leaderboards.costs import NOT_MEASURED
from leaderboards.summary import Row


def explain(rows: list[Row], budgets: list[Row]) -> list[str]:
    """The notes of one question: `rows` of the ranking, `budgets` of the ranking at accuracy budgets."""
    trained = [row for row in rows if not row["accuracy_reason"]]
    notes = [*_accuracy(trained), *_budgets(rows, budgets)] if trained else [_not_measured(rows)]
    proven = [row for row in rows if not np.isnan(row["epsilon"])]
    if proven:
        notes += _epsilon(proven)
    if trained and len(proven) < len(rows):
        notes.append("-: a heuristic, of which nothing is proven, has no epsilon; nor has what was not measured.")
    certified = [row for row in rows if not np.isnan(row["certificate"])]
    if certified:
        candidates = sorted({row["certificate_candidates"] for row in certified})
        notes.append(
            f"Picked / proven: told that the private image is one of {_range(candidates)}, no attack whatever can name "
            f"it more often than is proven (chance {1 / candidates[-1]:.3g}); picked: how often one did that is told "
            "so. Luck alone may carry it a little over a bound that holds; what it cannot explain is a broken "
            "certificate, which says that noise or clipping are not what they claim: no epsilon, no rank."
        )
    return notes


def _not_measured(rows: list[Row]) -> str:
    if all(row["accuracy_reason"] == NOT_MEASURED for row in rows):
        return "What a defense costs in accuracy was not measured, and no rank weighs it."
    return "What a defense costs in accuracy is not known: no training finished."


def _accuracy(rows: list[Row]) -> list[str]:
    """How accuracy was measured."""
    values = lambda name: [row[name] for row in rows]  # noqa: E731
    optimizers = " or ".join(dict.fromkeys(row["optimizer"] for row in rows if row["optimizer"]))
    rates = _range(values("learning_rate"))
    by = f", optimizer {optimizers}" + (f" (learning rate {rates})" if rates else "") if optimizers else ""
    return [
        f"Accuracy: share of {_range(values('test_images'))} test images that a model gets right after "
        f"{_range(values('rounds'))} rounds of {_range(values('clients'))} of {_range(values('population'))} clients, "
        f"all with the defense{by}; mean and 95% Student-t interval over {_range(values('accuracy_seeds'))} seeds. It "
        "starts untrained, whatever weights were attacked.",
        "Accuracy lost: percentage points against the undefended client, seed by seed.",
        "KiB sent: mean of an update in float32, deflated; ms: the shortest time of making one.",
    ]


def _budgets(rows: list[Row], budgets: list[Row]) -> list[str]:
    notes = ["The worst case weighs no cost: an update of zeros leaks nothing and trains nothing."]
    if any(row["defense"] for row in budgets):
        return [
            *notes,
            "Accuracy budgets: the strength that leaks least among those whose upper 95% limit of accuracy lost is "
            "within the budget, chosen on images and, of several, seeds that are not scored, stands for its family. "
            "Too costly: no strength is within it, or has an accuracy above chance.",
        ]
    whys = {row["why"] for row in budgets} - {rows[0]["unranked"]}
    return [*notes, f"No ranks at accuracy budgets: {whys.pop()}."] if len(whys) == 1 else notes


def _epsilon(rows: list[Row]) -> list[str]:
    """What an epsilon is about."""
    each = lambda name: " or ".join(dict.fromkeys(row[name] for row in rows if row[name]))  # noqa: E731
    values = lambda name: [row[name] for row in rows]  # noqa: E731
    notes = [
        f"Epsilon: differential privacy of one {each('unit')} ({each('relation')}) at delta {_range(values('delta'))}, "
        f"against the server that gets the client's updates, over {_range(values('rounds'))} rounds, in "
        f"{_range(values('participations'))} of which the client takes part; accountant: {each('accountant')}. The "
        "server knows who takes part, so that nothing is amplified by sampling (q = 1). An upper bound, as RDP's and "
        "PRV's are, and rounded up."
    ]
    if not all(np.isnan(row["epsilon_central"]) for row in rows):
        notes.append(
            "Central, trusted aggregator: epsilon against another adversary, who sees only the mean of a round's "
            "updates, all of honest clients; it says nothing of the server that is attacked here."
        )
    return notes


def _range(values: Iterable[float]) -> str:
    """One number, or the smallest to the largest."""
    known = sorted({float(value) for value in values if not pd.isna(value)})
    if not known:
        return ""
    ends = [f"{value:,.0f}" if value == int(value) else f"{value:g}" for value in (known[0], known[-1])]
    return ends[0] if len(known) == 1 else f"{ends[0]} to {ends[1]}"
