"""A small task for the client's tests."""

import pytest
import torch
from torch import nn

from defenses.schedule import Schedule
from defenses.task import Batch, Classifier, Normalise, Task


def small_task(schedule=None, dtype=torch.float64):
    """A convolutional task on 8x8 images with smooth activations; its parameters and a batch."""
    schedule = schedule or Schedule(images=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Sigmoid(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(256, 5)
        )
        batch = Batch(torch.rand(schedule.images, 1, 8, 8, dtype=dtype), torch.arange(schedule.images) % 5)
    model = Classifier(Normalise((0.5,), (0.25,)), network).eval().to(dtype)
    task = Task(model, classes=5, input_shape=(1, 8, 8), schedule=schedule)
    return task, {name: p.detach() for name, p in model.named_parameters()}, batch


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1)


@pytest.fixture
def make_task():
    return small_task
