"""One iteration of the batched attack against the plain loop, in one process; `make benchmark`.

Both run in turns, so that whatever else the machine does falls on both; the figure is the ratio of medians.
"""

import statistics
import time

import pytest
import torch
from reference import invert, start_of

from attacks.inverting_gradients import InvertingGradients
from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.datasets import load_dataset
from bench.models import untrained
from defenses.client import Batch, Task

ITERATIONS = 10
ROUNDS = 7


@pytest.mark.parametrize(("model", "trials"), [("lenet-zhu", 8), ("lenet-zhu", 64)])
def test_batched_iteration(benchmark, model, trials):
    data = load_dataset("cifar10-samples")
    network = untrained(
        model, {}, input_shape=data.input_shape, classes=data.classes, mean=data.mean, std=data.std, seed=0
    )
    task = Task(network, data.classes, data.input_shape)
    params = {name: p.detach() for name, p in network.named_parameters()}
    chosen = [i % len(data) for i in range(trials)]
    images, labels = data.images(chosen), data.labels[chosen]
    updates = [task.gradient(params, Batch(x[None], y[None])) for x, y in zip(images, labels, strict=True)]
    stacked = {name: torch.stack([u[name] for u in updates]) for name in params}
    seen = Observation(task, params, stacked, labels[:, None], ThreatModel())
    attack = InvertingGradients(iterations=ITERATIONS, tv_weight=1e-2)
    start = start_of(0, (1, *data.input_shape), torch.float32)

    def plain():
        invert(task, params, updates[0], labels[:1], start, iterations=ITERATIONS, tv_weight=1e-2)

    def batched():
        attack.reconstruct(seen, list(range(trials)))

    slow, fast = [], []
    plain(), batched()
    for _ in range(ROUNDS):
        for call, times in ((plain, slow), (batched, fast)):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    reference = statistics.median(slow) / ITERATIONS * 1e3
    engine = statistics.median(fast) / ITERATIONS / trials * 1e3
    benchmark.extra_info.update(
        reference_ms=reference, engine_ms=engine, ratio=reference / engine, threads=torch.get_num_threads()
    )
    print(f"\n{model}, {trials} trials: plain {reference:.2f} ms, batched {engine:.2f} ms per iteration and trial,")
    print(f"ratio {reference / engine:.1f} with {torch.get_num_threads()} threads")
    benchmark.pedantic(batched, rounds=1)
