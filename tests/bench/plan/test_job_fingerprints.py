"""A cached training or certificate must not survive a change of what it was made by."""

import ast
from pathlib import Path

import pytest
import torch

from bench.engines.run import prepare
from bench.plan.fingerprints import CERTIFYING, TRAINING
from bench.registry.registry import Registry
from bench.source_digests import CODE_ROOT
from bench.store.tensors import state_of, write_state

GRID = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 4
attacks = [{ name = "inverting_gradients", iterations = 1 }]
defenses = ["none", "dp_sgd"]
"""
JOBS = "[utility]\nrounds = 2\nclients = 4\nseeds = [0]\n[certificate]\ncandidates = 4\ntrials = 2\n"
EXEMPT = {
    "bench/errors.py": "messages",
    "bench/grid/sections.py": "what is asked stands in the id",
    "bench/data/catalogue.py": "names",
    "bench/registry/specs.py": "what is asked stands in the id",
    "bench/data/load.py": "the images themselves are digested",
    "bench/price/certificates.py": "bounds and tests, of certificates alone",
    "attacks/threat.py": "a record of facts",
}
PREPARING = '''
"""Widens the network."""

from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class Wider(Defense):
    """A layer more (no source)."""

    width: int = 4

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return update

    def prepare(self, model):
        model = deepcopy(model)
        if not any(isinstance(m, nn.Identity) for m in model.modules()):
            model.network.append(nn.Sequential(nn.Identity(), nn.Linear(10, self.width), nn.Linear(self.width, 10)))
        return model
'''


def imported(file, rooms):
    """The file and every file of these rooms that it imports at the top, directly or not."""
    seen, waiting = set(), [file]
    while waiting:
        path = waiting.pop()
        if path in seen or not (CODE_ROOT / path).is_file():
            continue
        seen.add(path)
        for node in ast.parse((CODE_ROOT / path).read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                waiting += [name.replace(".", "/") + ".py" for name in names if name.split(".")[0] in rooms]
    return seen - {room + "/__init__.py" for room in rooms}


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        (("bench/price/federated.py", "bench/price/utility.py"), TRAINING),
        (("bench/price/certificate_trials.py",), CERTIFYING),
    ],
    ids=["training", "certificate"],
)
def test_every_file_that_decides_a_result_is_in_its_fingerprint_or_exempt_for_a_reason(files, listed):
    needed = {path for file in files for path in imported(file, ("bench", "defenses"))}
    covered = {path.relative_to(CODE_ROOT).as_posix() for path in listed}
    assert needed - covered - EXEMPT.keys() == set()


def fingerprints(path, *overrides, plugins=()):
    plan = prepare(str(path), Registry(plugins), overrides=overrides)[3]
    return {job.kind: plan.fingerprints[job.id] for job in plan.jobs}, plan


def test_a_certificate_is_of_the_weights_in_the_checkpoint(tmp_path):
    grid, weights = tmp_path / "grid.toml", tmp_path / "w.safetensors"
    grid.write_text(GRID + JOBS)
    _, _, clients, plan = prepare(str(grid))
    model = clients.architecture(plan.cells[0].setting, 0)
    write_state(weights, state_of(model), {})
    asked = f'grid.weights=["{weights}"]'
    before = fingerprints(grid, asked)[0]
    assert fingerprints(grid, asked)[0] == before
    with torch.no_grad():
        next(model.parameters()).add_(1)
    write_state(weights, state_of(model), {})
    after = fingerprints(grid, asked)[0]
    assert after["certificate"] != before["certificate"]
    assert after["training"] == before["training"]  # it starts untrained


def test_another_architecture_by_the_same_plugin_is_another_method(tmp_path):
    plugin, grid = tmp_path / "wider.py", tmp_path / "grid.toml"
    plugin.write_text(PREPARING)
    grid.write_text(GRID + JOBS)
    found = []
    for width in (4, 8):
        own, plan = fingerprints(grid, f'grid.defenses=["none","wider(width={width})"]', plugins=[Path(plugin)])
        undefended = next(job for job in plan.jobs if job.defense[0].name == "none")
        block = next(plan.blocks())
        found.append((own["training"], plan.fingerprints[undefended.id], plan.fingerprints[block.id]))
    assert all(a != b for a, b in zip(*found, strict=True))
