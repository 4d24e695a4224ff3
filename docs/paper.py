"""Write docs/paper.md, the paper's figures beside ours, from the runs in the folders given, or from those published."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from claims import Claim, Line, Variant
from claims_attacks import ATTACKS
from claims_networks import NETWORKS
from claims_protocol import PROTOCOL
from orderings import Answer, Ordering, judge
from paper_pictures import chart, gallery, shows
from paper_words import HEAD, sentence
from published_run import Result, read

from bench.statistics import summarise_metric

CLAIMS = (ATTACKS, *NETWORKS, *PROTOCOL)
PUBLISHED = Path(__file__).parents[1] / "leaderboards" / "published" / "paper-small"
ABSENT = "-"
COLUMNS = (
    "", "paper", "ours", "ours - paper", "95% interval", "SSIM", "identified @pool", "n", "iterations", "underpowered",
    "update norm",
)  # fmt: skip


def page(results: dict[str, Result], pictures: dict[str, list[str]]) -> str:
    """The Markdown of the page; `pictures` holds the files, beside the page, of "claim preset"."""
    sections = [_section(claim, results, pictures) for claim in CLAIMS]
    return "\n".join([HEAD, _overview(results), *sections]).rstrip() + "\n"


def _overview(results: dict[str, Result]) -> str:
    rows = []
    answers: tuple[Answer, ...] = ("holds", "does not hold", "not decided")
    counted: dict[str, list[Ordering]] = {}
    for claim, variant in _tested():
        counts = ["not run", "", ""]
        if variant.preset in results:
            before = counted.setdefault(variant.preset, [])
            new = [h.ordering for h in variant.held if not h.asked and not any(map(h.ordering.is_that_of, before))]
            before += new
            found = Counter(judge(ordering, results[variant.preset].frame).answer for ordering in new)
            counts = [str(found[answer]) for answer in answers]
        rows.append([f"[{claim.title}](#{claim.slug})", f"`{variant.preset}`", *counts])
    head = ["claim", "preset", "orderings that hold", "do not hold", "not decided"]
    note = "Our own questions are not counted; an ordering that stands under two claims is, under the first.\n"
    return _table(head, rows, left=2) + "\n" + note


def _section(claim: Claim, results: dict[str, Result], pictures: dict[str, list[str]]) -> str:
    parts = [f'<a id="{claim.slug}"></a>\n\n## {claim.title}\n', f"**The paper.** {claim.paper}\n"]
    for variant in claim.variants:
        parts.append(f"### `{variant.preset}`\n")
        if variant.preset not in results:
            parts.append("Not run.\n")
            continue
        parts += _variant(variant, results[variant.preset], pictures.get(f"{claim.slug} {variant.preset}", []))
    return "\n".join(parts)


def _variant(variant: Variant, result: Result, pictures: list[str]) -> list[str]:
    about, frame = result.about, result.frame
    threads = ", ".join(f"{n} thread{'s' * (n != 1)}" for n in about["threads"])
    commits = ", ".join(commit[:10] for commit in about["commits"])
    weights = ", ".join(dict.fromkeys(frame["weights"]))
    images = frame["image"].nunique()
    facts = (
        f"**Ours.** {images} image{'s' * (images != 1)} of *{about['dataset']}*; weights: {weights}; "
        f"`{about['command']}`, commit {commits}, {', '.join(about['device'])} with {threads}, "
        f"{about['seconds'] / 60:.0f} minutes.\n"
    )
    lines = [row for line in variant.lines if (row := _row(line, frame)) is not None]
    head, lines = _without_empty([*COLUMNS, f"test accuracy ({_trained_on(frame)})"], lines)
    verdicts = [f"- {sentence(held, judge(held.ordering, frame))}" for held in variant.held]
    shown = [f"![{_alternative(name)}]({name})\n" for name in pictures]
    why = f"**Where and why it differs.** {variant.differs}\n"
    return [facts, _table(head, lines), *shown, "**Does the ordering hold?**\n", *verdicts, "", why]


def _row(line: Line, frame: pd.DataFrame) -> list[str] | None:
    rows = line.cells.of(frame)
    if rows.empty:
        return None
    first = rows.iloc[0]
    label = line.cells.label + (f" (`{first['attack_name']}`)" if line.cells.strongest else "")
    paper = ABSENT if line.paper is None else str(line.paper)
    bad = rows[rows["status"] != "ok"]
    if not bad.empty:
        return [label, paper, f"{bad['status'].iloc[0]}: {bad['reason'].iloc[0]}", *[ABSENT] * 9]
    psnr, ssim, found = (summarise_metric(rows, metric) for metric in ("psnr_db", "ssim", "identified"))
    accuracy = first["weights_accuracy"]
    iterations = json.loads(first["attack_parameters"]).get("iterations")
    return [
        label,
        paper,
        f"{psnr.mean:.2f}" + ("" if np.isnan(psnr.sd) else f" ± {psnr.sd:.2f}"),
        ABSENT if line.paper is None else f"{psnr.mean - line.paper.mean:+.2f}",
        ABSENT if np.isnan(psnr.low) else f"[{psnr.low:.1f}, {psnr.high:.1f}]",
        f"{ssim.mean:.2f}",
        f"{found.mean:.0%} @{first['identification_pool']:.0f}",
        str(psnr.n),
        ABSENT if iterations is None or line.cells.strongest else str(iterations),
        ABSENT if rows["underpowered"].isna().any() else f"{rows['underpowered'].mean():.0%}",
        ABSENT if line.cells.strongest else f"{rows['update_norm'].mean():.3g}",
        ABSENT if accuracy is None or pd.isna(accuracy) else f"{float(accuracy):.1%}",
    ]


def _trained_on(frame: pd.DataFrame) -> str:
    """The sets that the networks were trained on: where their label names none, the one attacked."""
    pairs = frame.loc[frame["weights_accuracy"].notna(), ["weights", "dataset"]].drop_duplicates()
    sets = [label.partition(" on ")[2] or dataset for label, dataset in pairs.itertuples(index=False)]
    return ", ".join(dict.fromkeys(sets))


def _without_empty(head: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    kept = [i for i in range(len(head)) if i in (0, 2) or any(row[i] != ABSENT for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    marks = [":--" if i < left else "--:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, marks, *rows]) + "\n"


def _alternative(name: str) -> str:
    preset = Path(name).stem.partition("-")[2]
    return ("Reconstructions of " if "gallery" in name else "PSNR in ") + preset


def draw(results: dict[str, Result], folder: Path) -> None:
    """Draw what the results allow into `folder`: galleries need the run's own folder."""
    folder.mkdir(exist_ok=True)
    for claim, variant in _tested():
        if (result := results.get(variant.preset)) is not None:
            chart(variant, result.frame, folder / f"psnr-{claim.slug}-{variant.preset}.png")
            if result.images is not None:
                gallery(variant, result.frame, result.images, folder / f"gallery-{claim.slug}-{variant.preset}.png")


def drawn(results: dict[str, Result], folder: Path) -> dict[str, list[str]]:
    """The pictures in `folder` of these very results, relative to its parent, by "claim preset"."""
    found: dict[str, list[str]] = {}
    for claim, variant in _tested():
        if (result := results.get(variant.preset)) is not None:
            names = [f"{kind}-{claim.slug}-{variant.preset}.png" for kind in ("psnr", "gallery")]
            there = [f"{folder.name}/{name}" for name in names if shows(folder / name, result.frame)]
            found[f"{claim.slug} {variant.preset}"] = there
    return found


def _tested() -> list[tuple[Claim, Variant]]:
    return [(claim, variant) for claim in CLAIMS for variant in claim.variants]


def main(folders: Iterable[Path], page_file: Path) -> None:
    """Make the page and its pictures of the runs in these folders."""
    results = {result.name: result for result in map(read, folders)}
    draw(results, page_file.with_suffix(""))
    page_file.write_text(page(results, drawn(results, page_file.with_suffix(""))), encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(PUBLISHED.iterdir()), Path(__file__).with_name("paper.md"))
