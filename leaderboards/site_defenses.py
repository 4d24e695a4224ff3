"""The page of a defense: one entry's strengths, question by question, against every attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leaderboards.entries import Entry
from leaderboards.evidence import METRICS, Attempt, Evidence, granted_text
from leaderboards.site_curves import Curve, curves
from leaderboards.site_figures import ABSENT, PERCENT, Figure, number, significant, span
from leaderboards.site_gallery import Choice, GalleryRow, Pictures, gallery
from leaderboards.site_heat import cell_page
from leaderboards.site_lines import Line, anchor_of, why_no_rank
from leaderboards.site_names import page_name
from leaderboards.site_results import Asked, Faced, Results
from leaderboards.summary import Row, status_text


@dataclass(frozen=True)
class AttackLine:
    """An attack or a floor against a strength: its seeds with their pages, why it has no result, and its figures."""

    attack: str
    knowledge: str
    adapts: bool
    pages: list[tuple[int, str]]
    status: str
    reason: str
    figures: list[Figure]


@dataclass(frozen=True)
class Strength:
    """A strength of the defense: its line of the leaderboard, what limits it, its attacks, its floors."""

    defense: str
    anchor: str
    line: Line
    limits: list[str]
    attacks: list[AttackLine]
    floors: list[AttackLine]


@dataclass(frozen=True)
class Part:
    """What one question says of the defense."""

    title: str
    anchor: str
    strengths: list[Strength]
    curves: list[Curve]
    choice: Choice | None
    gallery: list[GalleryRow]


ATTACK_COLUMNS = ("PSNR", "SSIM", "its floor", "gain", "identified", "labels", "underpowered", "n", "seconds")
FLOOR_COLUMNS = ("PSNR", "SSIM", "identified", "n")


def pages_of(results: Results) -> dict[str, str]:
    """Defense -> the page that all strengths of its name share within their entry."""
    found = {}
    for entry in results.published.entries:
        for cell in entry.cells:
            name = cell.identity.defense_name
            found[cell.identity.defense] = f"defenses/{page_name(entry.name, name)}.html"
    return found


def strengths_of(entry: Entry) -> dict[str, list[str]]:
    """Name of every defense in an entry -> its labels."""
    found: dict[str, list[str]] = {}
    for cell in entry.cells:
        own = found.setdefault(cell.identity.defense_name, [])
        if cell.identity.defense not in own:
            own.append(cell.identity.defense)
    return found


def part(
    results: Results, asked: Asked, title: str, anchor: str, labels: list[str], own: dict[str, Line],
    choice: Choice | None, pictures: Pictures,
) -> Part:  # fmt: skip
    """What a question says of the strengths of a defense; `own` are the question's lines by defense."""
    rows = {row["defense"]: row for row in results.rows[asked]}
    labels = [label for label in labels if label in rows]
    return Part(
        title,
        anchor,
        [_strength(results, asked, rows[label], own[label]) for label in labels],
        curves(results.rows[asked], labels),
        choice,
        gallery(results, asked, choice, labels, pictures) if choice else [],
    )


def _strength(results: Results, asked: Asked, row: Row, line: Line) -> Strength:
    evidence = results.evidence(asked, line.defense)
    told = {"rank": why_no_rank(results, asked, row), "incomplete": row["incomplete"], "accuracy": row["conflicts"]}
    told |= {"training": row["accuracy_reason"], "points lost": row["accuracy_lost_reason"]}
    told |= {"certificate": row["certificate_reason"]}
    # One reason is told once, as what it limits first.
    first = {why: what for what, why in reversed(told.items()) if why}
    limits = [f"{what}: {why}" for what, why in told.items() if why and first[why] == what]
    if line.state != "re-run" and row["unranked"]:
        limits.append(f"beside all entries: {row['unranked']}")
    own = results.summary[asked]
    controls = [(faced, other) for faced, other in own.items() if faced[0] == line.defense and other["control"]]
    floors = [_floor(results, asked, faced, other) for faced, other in controls]
    attacks = [_attack(results, asked, evidence, attempt) for attempt in evidence.attempts]
    return Strength(line.defense, anchor_of(line.defense), line, limits, attacks, floors)


def _attack(results: Results, asked: Asked, evidence: Evidence, attempt: Attempt) -> AttackLine:
    faced: Faced = (evidence.row["defense"], *attempt.variant)
    row = results.summary[asked][faced]
    gain = evidence.summarised(attempt.gain(METRICS[0]))
    floor = float(attempt.floor[METRICS[0]].mean())
    figures = [_psnr(row), number(_of(row, "ssim_mean"), ".3f")]
    if gain is None or attempt.recovers_labels:
        figures += [Figure(ABSENT), Figure(ABSENT)]
    else:
        interval = span(gain.low, gain.high, ".3f")
        figures += [number(floor, ".3f"), Figure(f"{gain.mean:+.3f}", f"{gain.mean:.9g}", interval)]
    figures += [number(_of(row, f"{name}_mean"), PERCENT) for name in ("identified", "label_accuracy", "underpowered")]
    figures += [Figure(str(row["n"]), str(row["n"])), significant(_seconds(results, asked, faced))]
    return _line(results, asked, faced, row, attempt.adapts, figures)


def _floor(results: Results, asked: Asked, faced: Faced, row: Row) -> AttackLine:
    figures = [_psnr(row), number(_of(row, "ssim_mean"), ".3f"), number(_of(row, "identified_mean"), PERCENT)]
    return _line(results, asked, faced, row, False, [*figures, Figure(str(row["n"]), str(row["n"]))])


def _line(results: Results, asked: Asked, faced: Faced, row: Row, adapts: bool, figures: list[Figure]) -> AttackLine:
    behind = results.cells[asked].get(faced, [])
    knowledge = granted_text(*faced[2:]).removeprefix(", ") or "as published"
    pages = [(cell.identity.seed, cell_page(entry, cell)) for entry, cell in behind]
    return AttackLine(faced[1], knowledge, adapts, pages, status_text(row), row["reason"] or "", figures)


def _psnr(row: Row) -> Figure:
    sd = _of(row, "psnr_db_sd")
    mean = number(_of(row, "psnr_db_mean"), ".2f")
    return Figure(mean.text, mean.sort, "" if np.isnan(sd) else f"SD {sd:.2f}")


def _of(row: Row, name: str) -> float:
    return np.nan if row["status"] != "ok" else row[name]


def _seconds(results: Results, asked: Asked, faced: Faced) -> float | None:
    own = [cell.seconds for _, cell in results.cells[asked].get(faced, []) if cell.seconds is not None]
    return sum(own) if own else None
