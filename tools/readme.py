"""Puts figures into the README and docs/quickstart.md: of the published board, and of a finished `quick` run."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from bench.store.store import Store
from leaderboards.entries.published import Published, published
from leaderboards.figures.privacy_accuracy import pareto_plot
from leaderboards.figures.style import save, style
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.evidence import questions
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.summary import Row, records
from leaderboards.tables.prices import bound_sign, epsilon_text, rank_text
from leaderboards.tables.standings import render
from tools.rooms import REPOSITORY

README = REPOSITORY / "README.md"


def put_quick(run: Path) -> None:
    """Refresh docs/quick and the marked part of docs/quickstart.md from the run's folder."""
    for kind, name in {"leakage": "leakage-*.png", "gallery": "gallery-*-defense-known.png"}.items():
        [picture] = (run / "plots").glob(name)
        shutil.copy(picture, REPOSITORY / "docs" / "quick" / f"{kind}.png")
    table = render(Store.existing(run).frame(), "markdown")
    first = table.split("\n- ")[0]
    put("table", first.strip(), REPOSITORY / "docs" / "quickstart.md")


def put(mark: str, text: str, page: Path = README) -> None:
    """Replace what stands between the marks of this name in a page."""
    marked = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    found, count = marked.subn(lambda m: f"{m[1]}{text}\n{m[2]}", page.read_text(encoding="utf-8"))
    assert count == 1, f"{page} has the marks of {mark} once"
    page.write_text(found, encoding="utf-8")


TARGET = REPOSITORY / "docs" / "board"


def put_board(name: str) -> None:
    """Refresh docs/board and the marked part of README.md from leaderboards/published."""
    board = published(name, REPOSITORY / "leaderboards" / "published")
    put("board", board_table(board))
    frame, jobs = board.frames(ranked=True)
    first = questions(frame)[0]
    title = f"{board.board.rules.title}: what the strongest attack gets beyond its floor, and what the defense costs"
    TARGET.mkdir(exist_ok=True)
    with style():
        figure = pareto_plot(first, costs_of(jobs), f"{title} ({first.row['weights']} weights)")
        assert figure is not None, "the board measures accuracy"
        for path in save(figure, TARGET, "plot"):
            if path.suffix != ".png":
                path.unlink()


def board_table(board: Published) -> str:
    """Rank and leakage under each of the board's weights, and what the defense costs, as a markdown table."""
    frame, jobs = board.frames(ranked=True)
    rows = records(ranking(questions(frame), board.board.rule, costs_of(jobs)))
    weights = list(dict.fromkeys(row["weights"] for row in rows))
    by_defense: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_defense.setdefault(row["defense"], {})[row["weights"]] = row
    heads = [f"{what}, {w}" for w in weights for what in ("rank", "SSIM gain")]
    head = ["defense", *heads, "identified", "labels found", "accuracy", "points lost", "epsilon", "picked / proven"]
    lines = [head, [":--", *["--:"] * (len(head) - 1)]]
    ordered = sorted(by_defense.values(), key=lambda own: [_rank(own.get(one)) for one in weights])
    lines += [_line(own, weights) for own in ordered]
    asked = board.board.rules
    return "\n".join(
        [
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"{rows[0]['n']} images of {asked.title}, board",
            f"[{board.board.name}](leaderboards/boards/{board.board.name}.toml). Rank 1 leaks least, at whatever cost;",
            "in brackets every rank that the comparisons leave open. SSIM gain: what the strongest attack gets on each",
            "image beyond its floors, with its 95% interval; ≥ where a better optimiser might get more. Identified:",
            "how often a reconstruction is nearest to its own image among 100. Labels found: by the best attack on",
            f"them; both {' / '.join(weights)}. Points lost: of test accuracy, against undefended training. Epsilon at",
            f"delta {_delta(rows)}. Picked / proven: how often an adversary named the private image among 20, and how",
            "often anybody can. A gain of 0 is no proof that nothing leaks; an epsilon is one.",
        ]
    )


def _line(own: dict[str, Row], weights: list[str]) -> list[str]:
    row = next(iter(own.values()))
    cells = [f"`{row['defense']}`"]
    for one in weights:
        cells += [rank_text(own[one]), _gain(own[one])] if one in own else ["-", "-"]
    lost = _number(row["accuracy_lost"], ".1f") + _span(row["accuracy_lost_low"], row["accuracy_lost_high"], ".1f")
    proven = "-" if pd.isna(row["certificate"]) else f"{row['certificate_measured']:.3f} / {row['certificate']:.3f}"
    for share in ("identified", "labels_found"):
        cells.append(" / ".join(_number(own[one][share], ".0%") for one in weights if one in own))
    cells += [_number(row["accuracy"], ".3f"), lost, _epsilon(row), proven]
    return cells


def _delta(rows: list[Row]) -> str:
    return " or ".join(sorted({f"{row['delta']:g}" for row in rows if not pd.isna(row["delta"])}))


def _rank(row: Row | None) -> tuple[float, float]:
    """The key that sorts the lines: the defense that leaks least comes first, one without a rank last."""
    if row is None or pd.isna(row["rank"]):
        return float("inf"), 0.0
    return float(row["rank"]), float(row["ssim_gain"])


def _gain(row: Row) -> str:
    gain = row["ssim_at_least"] if pd.isna(row["ssim_gain"]) else row["ssim_gain"]
    whole = not pd.isna(row["ssim_gain_low"]) and row["ssim_gain_high"] > 0
    return (
        bound_sign(row)
        + _number(gain, ".3f")
        + (_span(row["ssim_gain_low"], row["ssim_gain_high"], ".3f") if whole else "")
    )


def _epsilon(row: Row) -> str:
    if not pd.isna(row["epsilon"]):
        return epsilon_text(row["epsilon"])
    if row["defense_name"] == "none":
        return "-"
    return "heuristic" if str(row["no_epsilon"]).startswith("heuristic") else "-"


def _number(value: Any, form: str) -> str:
    return "-" if pd.isna(value) else f"{value:z{form}}"


def _span(low: float, high: float, form: str) -> str:
    return "" if pd.isna(low) else f" [{low:z{form}}, {high:z{form}}]"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["quick", *rest]:
            put_quick(Path(rest[0] if rest else "runs/quick"))
        case ["board", *rest]:
            put_board(rest[0] if rest else "fashion-mnist-v1")
        case _:
            sys.exit("python -m tools.readme quick [RUN] | board [NAME]")
