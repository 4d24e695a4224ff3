"""Tables of attacks against defenses, one section per setting: `leakboard table` and the end of a run print them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from rich.console import Console

from bench.errors import ConfigurationError, suggest
from leaderboards.ranking.costs import costs_of
from leaderboards.statistics.summary import Row, records, scored, settings, summarise
from leaderboards.tables.exports import priced
from leaderboards.tables.formats import Table, TableSection, to_latex, to_markdown
from leaderboards.tables.notes import Footnotes, explanations, extent, threat
from leaderboards.tables.terminal import to_text

FORMATS = ("text", "markdown", "latex", "csv", "json")
ABSENT = "-"


def render_scores(
    frame: pd.DataFrame, format: str = "text", jobs: pd.DataFrame | None = None, console: Console | None = None
) -> str:
    """The rows of `bench.store.store` as tables (text, markdown, latex) or as the whole summary (csv, json).

    With `jobs` the whole summary holds what every defense costs and proves, too (`costs.PRICE_COLUMNS`). Text is for
    the terminal of `console`, plain without one.
    """
    if format not in FORMATS:
        raise ConfigurationError(f"unknown table format {format!r}; {suggest(format, FORMATS)}")
    summary = summarise(frame) if jobs is None else priced(summarise(frame), costs_of(jobs))
    if format == "csv":
        return summary.to_csv(index=False, lineterminator="\n")
    if format == "json":
        return (summary.to_json(orient="records", indent=2, double_precision=12) or "[]") + "\n"
    if summary.empty:
        return "No cells yet: run the grid first.\n"
    return laid_out([_section(records(setting)) for setting in settings(summary)], format, console)


def laid_out(sections: list[TableSection], format: str, console: Console | None = None) -> str:
    """The sections as text, markdown or latex; text is for the terminal of `console`, plain without one."""
    if format == "text":
        return to_text(sections, console)
    return {"markdown": to_markdown, "latex": to_latex}[format](sections)


def _section(rows: list[Row]) -> TableSection:
    first = rows[0]
    notes = Footnotes()
    attacks = {row["attack"]: None for row in rows if not row["control"]}
    controls = {row["attack"]: None for row in sorted(rows, key=lambda r: r["attack_order"]) if row["control"]}
    defenses: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = row["defense"] if row["audited"] else f"{row['defense']} (unaudited)"
        defenses.setdefault(name, {})[row["attack"]] = row
    tables = [_matrix(defenses, list(attacks), list(controls), notes), _detail(defenses, list(attacks), notes)]
    floors = {name: {a: r for a, r in cells.items() if r["control"]} for name, cells in defenses.items()}
    floors = {name: cells for name, cells in floors.items() if cells}
    if floors:
        tables.append(_floors(floors, list(controls), notes))
    return TableSection(
        title=f"{first['dataset']}, {first['model']}, {first['weights']} weights",
        facts=f"{extent(rows)}. Threat model: {threat(rows)}.",
        tables=[table for table in tables if table.rows],
        notes=[*notes.lines(), *explanations(rows)],
    )


def _matrix(defenses: dict[str, dict[str, Row]], attacks: list[str], controls: list[str], notes: Footnotes) -> Table:
    """Defense x attack: mean PSNR and its SD over images, beside the strongest control."""
    rows, strong = [], set()
    for i, (defense, cells) in enumerate(defenses.items()):
        found = {a: cells[a]["psnr_db_mean"] for a in attacks if a in cells and scored(cells[a])}
        best = max(found, key=found.__getitem__, default=None)
        if best is not None and len(attacks) > 1:
            strong.add((i, 1 + attacks.index(best)))
        known = [cells[c] for c in controls if c in cells]
        floors = [row for row in known if scored(row)]
        floor = max(floors, key=lambda row: row["psnr_db_mean"], default=None)
        beside = ABSENT if floor is None else ("" if len(floors) == len(known) else "≥ ") + _spread(floor)
        gain = ABSENT
        if best is not None and floor is not None and len(floors) == len(known):
            # What did not finish might have been stronger; what cannot be run could not.
            open_end = any(cells[a]["status"] not in ("ok", "skipped") for a in attacks if a in cells)
            gain = ("≥ " if open_end else "") + f"{found[best] - floor['psnr_db_mean']:+.2f}"
        rows.append([defense, *(_or_status(cells.get(a), _spread, notes) for a in attacks), beside, gain])
    columns = ["defense", *attacks, "strongest floor", "above floor"]
    if not controls:
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    return Table("PSNR in dB: mean ± SD over images", columns, rows, strong=frozenset(strong))


def _detail(defenses: dict[str, dict[str, Row]], attacks: list[str], notes: Footnotes) -> Table:
    """Every figure of every attack, one group of rows per defense."""
    pools = {r["identification_pool"] for cells in defenses.values() for r in cells.values() if scored(r)}
    pools = {int(pool) for pool in pools if not np.isnan(pool)}
    identified = f"identified @{pools.pop()}" if len(pools) == 1 else "identified @n"
    figures: dict[str, Callable[[Row], str]] = {
        "PSNR": _spread,
        "95% interval": lambda row: _interval(row, "psnr_db", 1),
        "SSIM": lambda row: number(row["ssim_mean"], ".2f"),
        "95% interval ": lambda row: _interval(row, "ssim", 2),
        identified: lambda row: _identified(row, alone=identified[-1] != "n"),
        "labels": lambda row: number(row["label_accuracy_mean"], ".0%"),
        "n": lambda row: str(row["n"]),
        "underpowered": lambda row: number(row["underpowered_mean"], ".0%"),
        "update norm": lambda row: number(row["update_norm"], ".3g"),
    }
    likely = "by likelihood", "identified_by_likelihood_mean", ".0%"
    for title, column, how in (likely, ("LPIPS", "lpips_mean", ".3g"), ("feature error", "feature_error_mean", ".3g")):
        if any(scored(r) and not np.isnan(r[column]) for cells in defenses.values() for r in cells.values()):
            figures[title] = lambda row, column=column, how=how: number(row[column], how)
    # The first table's headings give the parameters; here the name does where it says which attack is meant.
    names = [attack.partition("(")[0] for attack in attacks]
    short = {a: name if names.count(name) == 1 else a for a, name in zip(attacks, names, strict=True)}
    rows = []
    for defense, cells in defenses.items():
        for attack in (a for a in attacks if a in cells):
            row = cells[attack]
            cell = _or_status(row, _spread, notes)
            rest = [f(row) if scored(row) else ABSENT for f in list(figures.values())[1:]]
            rows.append([defense, short[attack], cell, *rest])
    return Table("All attacks", ["defense", "attack", *figures], rows, left=2, grouped=True)


def _floors(floors: dict[str, dict[str, Row]], controls: list[str], notes: Footnotes) -> Table:
    rows = [[name, *(_or_status(cells.get(c), _spread, notes) for c in controls)] for name, cells in floors.items()]
    return Table("Controls, which use no gradient: PSNR in dB, mean ± SD over images", ["defense", *controls], rows)


def _or_status(row: Row | None, figure: Callable[[Row], str], notes: Footnotes) -> str:
    if row is None:
        return ABSENT
    return figure(row) if row["status"] == "ok" else notes.mark(row)


def number(value: float, how: str) -> str:
    """A figure in a format, or the mark of what was not measured."""
    return ABSENT if np.isnan(value) else format(value, how)


def _spread(row: Row) -> str:
    mean, sd = row["psnr_db_mean"], row["psnr_db_sd"]
    return number(mean, ".2f") + ("" if np.isnan(sd) else f" ± {sd:.2f}")


def _interval(row: Row, metric: str, digits: int) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return ABSENT if np.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _identified(row: Row, alone: bool) -> str:
    rate = number(row["identified_mean"], ".0%")
    return rate if alone or rate == ABSENT else f"{rate} @{row['identification_pool']:.0f}"
