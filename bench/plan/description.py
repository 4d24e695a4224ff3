"""The description of a run in its folder: the resolved configuration, the attacked images and the plan."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.columns import as_published
from bench.errors import ConfigurationError
from bench.grid.config import to_toml
from bench.grid.sections import Utility
from bench.price.utility import proven, rounds_of
from bench.registry.sources import named
from bench.registry.specs import chain_label, chain_name
from bench.store.store import VERSION, Store
from bench.store.whole_files import read_arrays

if TYPE_CHECKING:
    from bench.grid.cells import Cell
    from bench.plan.plan import Plan
    from bench.trial.clients import Clients


def begin(store: Store, plan: Plan, clients: Clients) -> None:
    """Publish the resolved configuration, the attacked images and the plan; raises `Unwritable`."""
    setting = plan.cells[0].setting
    dataset = clients.dataset(setting)
    images = range(plan.images)
    truth = f"truth-{dataset.digest(images)[:16]}.npz"
    pixels = dataset.pixels(images).numpy()
    try:
        whole = np.array_equal(read_arrays(store.folder / truth)["images"], pixels)
    except (ConfigurationError, KeyError):
        whole = False
    if not whole:
        store.write_arrays(store.folder / truth, images=pixels)
    store.write_text("run.toml", to_toml(plan.config))
    content = {
        "version": VERSION,
        "name": plan.config.name,
        "images": plan.images,
        "truth": truth,
        "dataset_title": dataset.title,
        "dataset_provenance": dataset.provenance,
        "expect": None if plan.config.expect is None else plan.config.expect.model_dump(),
        "notes": list(plan.notes),
        "cells": [as_published(described(cell, plan)) for cell in plan.cells],
        "jobs": described_jobs(plan, clients),
    }
    store.write_text("plan.json", json.dumps(content, indent=1))


def described(cell: Cell, plan: Plan) -> dict[str, Any]:
    """A cell as every row of its results repeats it."""
    threat = cell.threat
    return {
        "cell": cell.id,
        "dataset": cell.setting.dataset.name,
        "model": cell.setting.model_label,
        "weights": cell.setting.weights.label,
        "attack": cell.attack.label,
        "attack_name": cell.attack.name,
        "attack_parameters": json.dumps(cell.attack.parameters),
        "attack_order": cell.attack_order,
        "control": cell.control,
        "defense": chain_label(cell.defense),
        "defense_name": chain_name(cell.defense),
        "defense_order": cell.defense_order,
        "audited": cell.audited,
        "adapts": cell.adapts,
        "recovers_labels": cell.recovers_labels,
        "defense_parameters": json.dumps([part.parameters for part in cell.defense]),
        **asdict(threat),
        "threat_class": threat.sok_class(local_steps=not cell.schedule.sends_gradient),
        "public_images": cell.public.count,
        "public_left_out": cell.public.left_out,
        "public_sha256": cell.public.digest,
        "seed": cell.seed,
        "images_per_update": cell.schedule.images,
        "local_steps": 0 if cell.schedule.sends_gradient else cell.schedule.steps,
        "skip": cell.skip,
        "blocks": [
            {"id": block.id, "start": block.start, "stop": block.stop, "fingerprint": plan.fingerprints[block.id]}
            for block in cell.blocks(plan.images)
        ],
    }


def described_jobs(plan: Plan, clients: Clients) -> list[dict[str, Any]]:
    """The jobs as their rows of results repeat them, and what each defense proves, which no seed changes."""
    proofs: dict[Any, dict[str, Any]] = {}
    rows = []
    for job in plan.jobs:
        key = job.setting, job.defense
        if isinstance(job.section, Utility) and key not in proofs:
            rounds = rounds_of(job.section, clients.dataset(job.setting), job.schedule)
            with named(f"defense {chain_label(job.defense)}"):
                proofs[key] = proven(clients.chain(job.defense), job.setting.client, rounds, job.section.delta)
        proof = proofs[key] if isinstance(job.section, Utility) else {}
        rows.append({**job.described, "fingerprint": plan.fingerprints[job.id], **proof})
    return rows
