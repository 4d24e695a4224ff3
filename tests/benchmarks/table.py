"""The benchmarks' table, from the file that pytest-benchmark wrote: `python tests/benchmarks/table.py FILE`.

Exits with 1 where a goal is missed by all of its rows, or where the cost per trial rises with the number of trials.
"""

import json
import sys
from pathlib import Path

RISE = 1.1
"""A cost per trial counts as flat up to this factor, about what two runs of the same differ by."""
HEAD = (
    "case",
    "trials",
    "execution",
    "engine",
    "reference",
    "ratio",
    "target",
    "to breaching",
    "of peak",
    "MiB",
    "set-up s",
)


def lines_of(stored):
    """The lines to print of a stored session, and whether everything reached its target."""
    rows = [{**b["extra_info"]} for b in stored["benchmarks"] if "kind" in b["extra_info"]]
    cases, peers, scaling = ([r for r in rows if r["kind"] == kind] for kind in ("case", "peer", "scaling"))
    to_peer = {key_of(r): r["ratio"] for r in peers}
    seen = {key_of(r) for r in cases}
    shown = [HEAD, *(cells_of(r, to_peer.get(key_of(r))) for r in cases)]
    shown += [cells_of(r, r["ratio"]) for r in peers if key_of(r) not in seen]
    lines = [
        "Milliseconds per iteration and trial; * marks a ratio under its target.",
        "",
        *aligned(shown),
        "",
    ]
    best = best_of(cases)
    for goal, (ratio, target) in best.items():
        lines.append(f"goal {goal}: {ratio:.2f}, target {target:g}{'' if ratio >= target else ' NOT REACHED'}")
    rises = False
    scaling.sort(key=lambda r: r["trials"])
    for before, r in zip([None, *scaling], scaling, strict=False):
        up = before is not None and r["engine_ms"] > RISE * before["engine_ms"]
        rises |= up
        note = f" RISES by more than {RISE - 1:.0%}" if up else ""
        lines.append(f"scaling {r['name']}, {r['mode']}: {r['trials']:4} trials, {r['engine_ms']:.3f} ms each{note}")
    for r in rows:
        if r.get("peak_memory_mib", 0) is None:
            lines.append(f"no peak memory: {r['peak_memory_how']}")
            break
    lines.append(", ".join(f"{key} {value}" for key, value in stored["machine_info"].get("leakboard", {}).items()))
    return lines, not rises and all(ratio >= target for ratio, target in best.values())


def key_of(row):
    """What makes two rows the same case, whoever was measured beside the engine."""
    return row["name"], row["trials"], row["mode"], row["precision"]


def cells_of(row, to_peer):
    """A row's texts, in the order of HEAD."""
    targets = row.get("targets", {}).values()
    own = row if row["kind"] == "case" else {}  # a peer's row has no ratio to the plain loop
    under = any(own["ratio"] < target for target in targets)
    execution = f"{row['mode']} {row['precision']} {row['gradient']}"
    return (
        row["name"],
        str(row["trials"]),
        execution,
        number(row["engine_ms"], ".3f"),
        number(own.get("rival_ms"), ".2f"),
        number(own.get("ratio"), ".2f") + "*" * under,
        " / ".join(f"{target:g}" for target in targets) or "-",
        number(to_peer, ".2f"),
        number(row.get("share_of_peak"), ".1%"),
        number(row.get("peak_memory_mib"), ".0f"),
        number(row.get("set_up_seconds"), ".1f"),
    )


def best_of(cases):
    """Goal -> the best ratio of its rows, and its target."""
    best = {}
    for row in cases:
        for goal, target in row["targets"].items():
            best[goal] = max(best.get(goal, (0.0, target)), (row["ratio"], target))
    return best


def number(value, form):
    return "-" if value is None else format(value, form)


def aligned(rows):
    """Rows of texts as a Markdown table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


if __name__ == "__main__":
    printed, reached = lines_of(json.loads(Path(sys.argv[1]).read_text()))
    print(*printed, sep="\n")
    sys.exit(not reached)
