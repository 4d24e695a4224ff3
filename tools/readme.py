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
from leaderboards.evidence.question import questions
from leaderboards.figures.privacy_accuracy import pareto_plot
from leaderboards.figures.style import save, style
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict
from leaderboards.tables.exports import verdict_words
from leaderboards.tables.prices import bound_sign, epsilon_text, rank_text
from leaderboards.tables.standings import render_standings
from tools.rooms import REPOSITORY

README = REPOSITORY / "README.md"


def put_quick(run: Path) -> None:
    """Refresh docs/quick and the marked part of docs/quickstart.md from the run's folder."""
    for kind, name in {"leakage": "leakage-*.png", "gallery": "gallery-*-defense-known.png"}.items():
        [picture] = (run / "plots").glob(name)
        shutil.copy(picture, REPOSITORY / "docs" / "quick" / f"{kind}.png")
    put("table", quick_table(Store.existing(run).frame()), REPOSITORY / "docs" / "quickstart.md")


def quick_table(frame: pd.DataFrame) -> str:
    """The ranking of a run by the rules of grids, without its notes."""
    return render_standings(frame, "markdown").split("\n- ")[0].strip()


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
        figure = pareto_plot(first, costs_of(jobs), f"{title} ({first.row['weights']} weights)", board.rule)
        assert figure is not None, "the board measures accuracy"
        for path in save(figure, TARGET, "plot"):
            if path.suffix != ".png":
                path.unlink()


def board_table(board: Published) -> str:
    """Rank and leakage under each of the board's weights, and what the defense costs, as a markdown table."""
    frame, jobs = board.frames(ranked=True)
    standings = ranking(questions(frame), board.rule, costs_of(jobs))
    weights = list(dict.fromkeys(_weights(own) for own in standings))
    by_defense: dict[str, dict[str, Standing]] = {}
    for own in standings:
        by_defense.setdefault(own.defense, {})[_weights(own)] = own
    heads = [f"{what}, {w}" for w in weights for what in ("rank", "SSIM gain")]
    head = ["defense", *heads, "identified", "labels found", "accuracy", "points lost", "epsilon", "picked / proven"]
    head.append("verdicts")
    lines = [head, [":--", *["--:"] * (len(head) - 1)]]
    ordered = sorted(by_defense.values(), key=lambda own: [_rank(own.get(one)) for one in weights])
    lines += [_line(own, weights, board.board.rule) for own in ordered]
    asked, rule = board.board.rules, board.board.rule
    return "\n".join(
        [
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"{len(standings[0].question.images)} images of {asked.title}, board",
            f"[{board.board.name}](leaderboards/boards/{board.board.name}.toml). Rank 1 leaks least, at whatever cost;",
            f"in brackets every rank that the comparisons leave open. {SSIM_GAIN[rule.rules]}",
            "how often a reconstruction is nearest to its own image among 100. Labels found: by the best attack on",
            f"them; both {' / '.join(weights)}. {POINTS_LOST[rule.rules]} Epsilon at",
            f"delta {_delta(standings)}. Picked / proven: how often an adversary named the private image among 20, and "
            "how",
            "often anybody can. A gain of 0 is no proof that nothing leaks; an epsilon bounds it, where it is small.",
        ]
    )


SSIM_GAIN = {
    1: "SSIM gain: what the strongest attack gets on each\n"
    "image beyond its floors, with its 95% interval; ≥ where a better optimiser might get more. Identified:",
    2: "SSIM gain: the mean of the strongest attack minus\n"
    "that of its strongest floor, with its 95% interval over images and seeds of weights; ≥ where a better optimiser\n"
    "might get more. A verdict may take a rank: docs/how-numbers-are-made.md. Identified:",
}
"""Number of the rules -> the meaning of the column."""
POINTS_LOST = {
    1: "Points lost: of test accuracy, against undefended training.",
    2: "Points lost: of test accuracy, after as many images as\nundefended training sees. Epsilon is of as many "
    "releases as are attacked.",
}
"""Number of the rules -> the meaning of the columns of costs."""


def _weights(standing: Standing) -> str:
    return standing.question.row["weights"]


def _line(own: dict[str, Standing], weights: list[str], rule: RankingRule) -> list[str]:
    first = next(iter(own.values()))
    price, cells = first.price, [f"`{first.defense}`"]
    for one in weights:
        cells += [rank_text(own[one].rank), _gain(own[one])] if one in own else ["-", "-"]
    loss, accuracy = price.loss(rule.weighs_equal_images), price.reached(rule.weighs_equal_images)
    lost = _number(loss.mean, ".1f") + _span(loss.low, loss.high, ".1f")
    proven = "-" if pd.isna(price.certificate) else f"{price.certificate_measured:.3f} / {price.certificate:.3f}"
    there = [own[one] for one in weights if one in own]
    cells.append(" / ".join(_number(one.identified, ".0%") for one in there))
    cells.append(" / ".join(_number(one.labels_found, ".0%") for one in there))
    verdicts = frozenset[Verdict]().union(*(one.verdicts for one in there))
    cells += [_number(accuracy, ".3f"), lost, _epsilon(first, rule), proven]
    return [*cells, ", ".join(verdict_words(verdicts)) or "-"]


def _delta(standings: list[Standing]) -> str:
    return " or ".join(sorted({f"{own.price.delta:g}" for own in standings if not pd.isna(own.price.delta)}))


def _rank(standing: Standing | None) -> tuple[float, float]:
    """The key that sorts the lines: the defense that leaks least comes first, one without a rank last."""
    if standing is None or standing.rank is None:
        return float("inf"), 0.0
    return float(standing.rank.lowest), standing.gain.mean


def _gain(standing: Standing) -> str:
    gain = standing.gain
    interval = _span(gain.low, gain.high, ".3f") if gain.high > 0 else ""
    return bound_sign(standing) + _number(standing.shown_gain, ".3f") + interval


def _epsilon(standing: Standing, rule: RankingRule) -> str:
    price = standing.price
    if not pd.isna(epsilon := price.stated_epsilon(rule.states_attacked_releases)):
        return epsilon_text(epsilon)
    return "heuristic" if price.is_heuristic and not standing.is_undefended else "-"


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
