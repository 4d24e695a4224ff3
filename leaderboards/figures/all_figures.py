"""All figures of a run, as PNG and SVG: leakage of every question, then each setting's curves, heat map and gallery."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attacks.threat import Switch, switches
from bench.columns import SETTING
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.summary import records, settings, summarise
from leaderboards.tables.labels import slug
from leaderboards.tables.notes import extent, known_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leaderboards.figures.gallery import Images


def write_plots(
    frame: pd.DataFrame,
    images: Images,
    folder: Path,
    jobs: pd.DataFrame | None = None,
    rule: RankingRule | None = None,
) -> list[Path]:
    """Draw every setting of the store's rows into `folder`; returns the files written.

    The files are named pareto-, leakage-, effort-, curves-, heatmap- and gallery- with dataset, model and weights, and
    the threat model where settings differ in it only. A figure that would be empty is left out: pareto without a
    training among the `jobs` of the store, curves without a defense, effort where every attack has one number of
    iterations, a gallery without a finished attack. The same results give the same bytes.
    """
    from leaderboards.figures.curves import strength_curves
    from leaderboards.figures.gallery import gallery
    from leaderboards.figures.heat_map import heat_map
    from leaderboards.figures.style import save, style

    folder.mkdir(parents=True, exist_ok=True)
    written = _of_questions(frame, folder, jobs, rule)
    tables = settings(summarise(frame)) if len(frame) else []
    for name, table in zip(_names(tables), tables, strict=True):
        rows = records(table)
        first = rows[0]
        title = f"{first['dataset']}, {first['model']}, {first['weights']} weights ({extent(rows)})"
        chosen = (frame[SETTING] == pd.Series({key: first[key] for key in SETTING})).all(axis=1)
        figures: dict[str, Callable[[], Figure | None]] = {
            "curves": lambda rows=rows, title=title: strength_curves(rows, title),
            "heatmap": lambda rows=rows, title=title: heat_map(rows, title),
            "gallery": lambda chosen=chosen, title=title: gallery(frame.loc[chosen], images, title),
        }
        for kind, draw in figures.items():
            with style():
                figure = draw()
                if figure is not None:
                    written += save(figure, folder, f"{kind}-{name}")
    return written


def _of_questions(frame: pd.DataFrame, folder: Path, jobs: pd.DataFrame | None, rule: RankingRule | None) -> list[Path]:
    """The figures of the strongest attack: one set for all that a server may know of schedule and defense."""
    from leaderboards.evidence.question import questions
    from leaderboards.figures.effort import effort_curves
    from leaderboards.figures.leakage import leakage_curves
    from leaderboards.figures.privacy_accuracy import pareto_plot
    from leaderboards.figures.style import save, style
    from leaderboards.ranking.costs import costs_of

    written: list[Path] = []
    priced = partial(pareto_plot, costs=costs_of(jobs), rule=rule)
    found = questions(frame) if len(frame) else []
    short = [slug(q.row["dataset"], q.row["model"], q.row["weights"]) for q in found]
    for question, name in zip(found, short, strict=True):
        row, n = question.row, len(question.images)
        title = f"{row['dataset']}, {row['model']}, {row['weights']} weights ({n} image{'s' * (n != 1)})"
        secrets = [_granted(switch, row[switch.name]) for switch in switches() if not switch.subject]
        full = name if short.count(name) == 1 else slug(name, *secrets)
        for kind, draw in {"pareto": priced, "leakage": leakage_curves, "effort": effort_curves}.items():
            with style():
                figure = draw(question, title=title)
                if figure is not None:
                    written += save(figure, folder, f"{kind}-{full}")
    return written


def _names(tables: list[pd.DataFrame]) -> list[str]:
    """One slug per setting, as short as keeps them apart."""
    setting = [records(table.iloc[:1])[0] for table in tables]
    short = [slug(row["dataset"], row["model"], row["weights"]) for row in setting]
    full = [
        slug(name, *(_granted(switch, row[switch.name]) for switch in switches()))
        for name, row in zip(short, setting, strict=True)
    ]
    return [name if short.count(name) == 1 else long for name, long in zip(short, full, strict=True)]


def _granted(switch: Switch, value: Any) -> str:
    """The server's knowledge of one thing, in words; "" where it is as it was before anybody could choose."""
    if switch.since and value == switch.default:
        return ""
    if switch.subject:
        return f"{switch.short} {'known' if value else 'unknown'}"
    return known_text(switch, value) if switch.within is not None else f"{switch.name} {value}"
