"""A job: a federated training or a certificate of a defense, computed beside the attacks, as a cell of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.grid.cells import Setting
from bench.grid.sections import CertificateTest, Utility
from bench.registry.specs import ChainSpec, chain_label, chain_name
from defenses.schedule import Schedule


@dataclass(frozen=True)
class Job:
    """A defense in a setting, trained with ("training") or put to a test of its proof ("certificate").

    Training starts from the setting's architecture with new weights, whatever weights are attacked: its job is shared
    by all of them.
    """

    setting: Setting
    """The dataset, model and client; of a certificate also the weights."""
    defense: ChainSpec
    """The parts of the client's defense."""
    defense_order: int
    """The defense's place in the grid."""
    schedule: Schedule
    """The client's work after the defense."""
    seed: int
    """The number from which all chance of the job is drawn."""
    section: Utility | CertificateTest
    """The section of the grid file that asks for the job."""

    @property
    def kind(self) -> str:
        return "training" if isinstance(self.section, Utility) else "certificate"

    @cached_property
    def id(self) -> str:
        """The kind and 16 hexadecimal digits of the choices that decide its result."""
        setting = self.setting.identity
        if self.kind == "training":
            del setting["weights"]
        choices = {
            "setting": setting,
            "defense": [part.canonical for part in self.defense],
            "seed": self.seed,
            "asked": self.section.identity,
        }
        return f"{self.kind}-{hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:16]}"

    @property
    def title(self) -> str:
        return f"{self.kind} / {chain_label(self.defense)}, seed {self.seed}"

    @property
    def described(self) -> dict[str, Any]:
        """Columns that every row of its results repeats."""
        return {
            "kind": self.kind,
            "job": self.id,
            "dataset": self.setting.dataset.name,
            "model": self.setting.model_label,
            "weights": self.setting.weights.label if self.kind == "certificate" else None,
            "defense": chain_label(self.defense),
            "defense_name": chain_name(self.defense),
            "defense_parameters": json.dumps([part.parameters for part in self.defense]),
            "defense_order": self.defense_order,
            "images_per_update": self.schedule.images,
            "local_steps": 0 if self.schedule.sends_gradient else self.schedule.steps,
            "seed": self.seed,
            **self.section.described,
        }
