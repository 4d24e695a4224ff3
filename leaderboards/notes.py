"""What stands around a table: its extent, its threat model, and why cells have no score."""

from __future__ import annotations

from textwrap import shorten

import numpy as np

from leaderboards.summary import Row, scored, status_text


class Footnotes:
    """Numbers the distinct reasons why cells have no score."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def mark(self, row: Row) -> str:
        """The text of the failed cell, with its number where there is a reason."""
        if not row["reason"]:
            return status_text(row)
        number = self._numbers.setdefault((row["status"], row["reason"]), len(self._numbers) + 1)
        return f"{status_text(row)} [{number}]"

    def lines(self) -> list[str]:
        """One line per reason; what is longer than a few lines of a terminal is cut."""
        return [
            f"[{number}] {status}: {shorten(reason, 300, placeholder=' ...')}"
            for (status, reason), number in self._numbers.items()
        ]


def marked(reasons: dict[str, int], why: str | None) -> str:
    """What to write behind a figure that is limited by `why`: its number among the reasons; "" without one."""
    return f" [{reasons.setdefault(why, len(reasons) + 1)}]" if why else ""


def extent(rows: list[Row]) -> str:
    """How many images and seeds stand behind the figures of a setting."""
    counts = sorted({row["n"] for row in rows if row["n"]}) or [0]
    images = f"{counts[0]} image{'s' * (counts[0] != 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"
    seeds = max(row["seeds"] for row in rows)
    return f"{images}, {seeds} seed{'s' * (seeds != 1)}"


def threat(rows: list[Row]) -> str:
    """What the server knows, and the SoK's class (USENIX Security 2025) of each defense's protocol."""
    first = rows[0]
    classes: dict[str, list[str]] = {}
    for row in rows:
        classes.setdefault(row["threat_class"], []).append(row["defense_name"])
    usual = max(classes, key=lambda letter: len(classes[letter]))
    others = [f"{c} under {', '.join(dict.fromkeys(names))}" for c, names in classes.items() if c != usual]
    known = {True: "known", False: "not known"}
    granted = batch_norm_text(first["batch_norm"])
    return (
        f"labels {first['labels']}, local schedule {known[bool(first['schedule_known'])]}, "
        f"defense {known[bool(first['defense_known'])]}{granted}; class {', '.join([usual, *others])}"
    )


def batch_norm_text(granted: str) -> str:
    """What to write of the batch-norm statistics that the server is granted, behind what it knows else."""
    # The running statistics are buffers of the model, which every server has: not worth a word.
    return {"batch": ", batch statistics known", "unknown": ", batch norm's statistics not used"}.get(granted, "")


def explanations(rows: list[Row]) -> list[str]:
    """How the tables of a setting are to be read."""
    several = any(row["images_per_update"] > 1 for row in rows)
    units = "images, or over client batches where an update holds several images" if several else "images"
    chances = sorted({row["identification_chance"] for row in rows if not np.isnan(row["identification_chance"])})
    notes = [f"±: standard deviation over images. Intervals: 95% bootstrap of the mean over {units}, from 5 on."]
    if any(row["control"] for row in rows):
        notes.append("Floor: a control that uses no gradient; what it reaches does not come from the update.")
    if chances:
        guessing = " or ".join(f"{chance:.1%}" for chance in chances)
        notes.append(f"Identified @n: the private image is the nearest of n to its reconstruction; chance {guessing}.")
    if any(scored(row) and not row["control"] and row["underpowered_mean"] > 0 for row in rows):
        notes.append(
            "Underpowered: reconstructions whose objective is worse than at the private image; a better optimiser "
            "might get more, so they bound the leakage from below."
        )
    if rows[0]["defense_known"]:
        notes.append("Attacks that match gradients adapt to the defense (defense_known = true); the others do not.")
    else:
        notes.append(
            "The attacks do not adapt to the defense (defense_known = false): low figures prove no protection."
        )
    if not all(row["audited"] for row in rows):
        notes.append("Unaudited: no attack adapts to this defense; nobody has said how, or its schedule is not known.")
    if any(scored(row) and not row["control"] and np.isnan(row["ssim_mean"]) for row in rows):
        notes.append("-: not measured (SSIM needs images of 11 pixels a side) or not part of the grid.")
    return notes
