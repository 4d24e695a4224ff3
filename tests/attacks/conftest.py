"""Real tasks and observations for the attacks' tests."""

from types import SimpleNamespace

import pytest
import torch

from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.models.build import untrained
from defenses.batch_norm import batch_statistics
from defenses.chain import Chain
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Batch, Task


def make_case(
    model="lenet-zhu", dataset="cifar10-samples", trials=3, schedule=None, defense=(), threat=None, dtype=None, **extra
):
    """What a server observes of the first images of a dataset, and the truth: images (t b c h w), labels (t b)."""
    data = load_dataset(dataset)
    chain = Chain(tuple(defense) or (NoDefense(),))
    network = untrained(
        model, extra, input_shape=data.input_shape, classes=data.classes, mean=data.mean, std=data.std, seed=0
    )
    network = chain.prepare(network).to(dtype or torch.float32)
    task = Task(network, data.classes, data.input_shape, chain.schedule(schedule or Schedule()))
    params = {name: p.detach() for name, p in network.named_parameters()}
    b = task.schedule.images
    images = data.images(range(trials * b)).to(dtype or torch.float32).view(trials, b, *data.input_shape)
    labels = data.labels[: trials * b].view(trials, b)
    updates = [
        chain.update(task, params, Batch(x, y), torch.Generator().manual_seed(i))
        for i, (x, y) in enumerate(zip(images, labels, strict=True))
    ]
    threat = threat or ThreatModel()
    known = labels.sort(dim=1).values if threat.labels == "known" else None
    stacked = {name: torch.stack([u[name] for u in updates]) for name in params}
    defended = chain.simulation(task) if threat.defense_known else None
    sent = batch_statistics(task, params, images) if threat.batch_norm == "batch" else None
    common = task, params, stacked, known, threat, task.schedule.update_scale
    observation = Observation(*common, defense=defended, batch_statistics=sent)
    return SimpleNamespace(task=task, params=params, observation=observation, images=images, labels=labels)


@pytest.fixture
def case():
    return make_case
