"""What the server knows; torch-free, so that planning a grid stays cheap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ThreatModel:
    """The server's knowledge beside model, weights and update.

    - `labels`: "known" (the multiset, sorted: never in batch order), "recovered" from the update by rules, or
      "joint" (label logits are optimised together with the images).
    - `schedule_known`: false: a weight difference is matched as if it were one gradient.
    - `defense_known`: false: the attack does not adapt to the defense.
    - `batch_norm`: what is known of the inputs of batch-norm layers over the private batch: "running" (only the
      running statistics, public buffers of the model, for a guess), "batch" (the client also sends mean and
      variance of its batch, as clients do whose buffers are aggregated) or "unknown" (nothing is guessed).

    The class is that of the SoK of gradient inversion (USENIX Security 2025): B, basic knowledge; C, with the
    client's training details; E, with statistics of the client's data.
    """

    labels: Literal["known", "recovered", "joint"] = "known"
    schedule_known: bool = True
    defense_known: bool = False
    batch_norm: Literal["running", "batch", "unknown"] = "running"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a result. Knowledge that was added later is left out where it is as it always was."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("batch_norm", "running")}

    def sok_class(self, *, local_steps: bool) -> str:
        """The SoK's letter; the schedule is a detail only where the client takes local steps."""
        if self.batch_norm == "batch":
            return "E"
        return "C" if (local_steps and self.schedule_known) or self.defense_known else "B"
