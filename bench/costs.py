"""What a row of results says of how it was made."""

from __future__ import annotations

from typing import Any

CHOSEN = ("execution", "gradient", "precision", "lanes", "milliseconds", "compile_seconds", "peak_bytes", "why")


def made(record: dict[str, Any]) -> dict[str, Any]:
    """Columns from a block's record; those of the engine are None where no engine ran, as for grey images.

    `chunk` counts trials where the attack ran by itself, else the lanes of one program.
    """
    cost = record["cost"]
    choice = next(iter(cost.get("execution", ())), {})
    columns = {f"engine_{name}": choice.get(name) for name in CHOSEN}
    columns["weights_accuracy"] = record.get("weights", {}).get("accuracy")
    return {"device": record["provenance"]["device"], "chunk": choice.get("chunk", cost["chunk"]), **columns}
