"""What the server knows; torch-free, so that planning a grid stays cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ThreatModel:
    """The server's knowledge beside model, weights and update.

    - `labels`: "known" (the multiset, sorted: never in batch order), "recovered" from the update by rules, or
      "joint" (label logits are optimised together with the images).
    - `schedule_known`: false: a weight difference is matched as if it were one gradient.
    - `defense_known`: false: the attack does not adapt to the defense.

    The class is that of the SoK of gradient inversion (USENIX Security 2025): B, basic knowledge; C, with the
    client's training details.
    """

    labels: Literal["known", "recovered", "joint"] = "known"
    schedule_known: bool = True
    defense_known: bool = False

    def sok_class(self, *, local_steps: bool) -> str:
        """The SoK's letter; the schedule is a detail only where the client takes local steps."""
        return "C" if (local_steps and self.schedule_known) or self.defense_known else "B"
