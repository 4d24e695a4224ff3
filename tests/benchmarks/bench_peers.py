"""The engine against breaching 0.1.2 (github.com/JonasGeiping/breaching), the most used public tool.

Its `invertinggradients` attack as configured by itself, unpatched and without any shim, on the same network, weights,
image, label and starting point; it needs the extra `peers`. Its image lives in normalised space, so that it is given
the network without our first layer. Its total variation also counts the differences to zeros around the image, and
divides by all pixels: on an image whose last row and column are zero, that is (side - 1) / side of ours. Both are
checked before anything is timed; iterations do the same work in both.
"""

from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from bench_engine import CASES
from reference import start_of

from attacks.matching.priors import total_variation
from attacks.optimisation.inverting_gradients import InvertingGradients

ITERATIONS = 30
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of breaching's dependencies


@pytest.fixture(scope="module")
def breaching():
    """The package, where it is installed."""
    return pytest.importorskip("breaching", reason="breaching is not installed: pip install -e '.[peers]'")


def peer_of(breaching, seen, iterations, tv_weight):
    """Breaching's attacker of the first trial, and its view of what server and client send."""
    with redirect_stdout(StringIO()):
        config = breaching.get_attack_config("invertinggradients")
    config.optim.max_iterations = iterations
    config.regularization.total_variation.scale = tv_weight
    normalise, network = seen.task.model.normalise, seen.task.model.network
    setup = {"device": seen.device, "dtype": torch.float32}
    attacker = breaching.attacks.prepare_attack(network, torch.nn.CrossEntropyLoss(), config, setup)
    metadata = SimpleNamespace(
        shape=seen.task.input_shape, mean=normalise.mean.flatten(), std=normalise.std.flatten(), modality="vision"
    )
    server = [{"parameters": list(seen.params.values()), "buffers": list(network.buffers()), "metadata": metadata}]
    client = {"labels": seen.labels[0], "num_data_points": 1, "local_hyperparams": None}
    gradients = [u[0] for u in seen.updates.values()]
    return attacker, server, [{"gradients": gradients, "buffers": None, "metadata": client}]


def same_objective(attacker, server, shared, seen):
    """The largest relative differences of both terms at a point, and of the cosine term's gradient there."""
    models, labels, _ = attacker.prepare_attack(server, shared)
    attacker.objective.initialize(attacker.loss_fn, attacker.cfg.impl, None)
    side = seen.task.input_shape[-1]
    x = start_of(1, (1, *seen.task.input_shape), torch.float32)
    x[..., -1], x[..., -1, :] = 0, 0
    x.requires_grad_()
    theirs, _ = attacker.objective(models[0], shared[0]["gradients"], x, labels)
    ours = InvertingGradients(tv_weight=0.0).objective(seen[:1], seen.task.denormalise(x)[None], seen.labels[:1])
    prior = attacker.regularizers[0].scale * total_variation(x) * (side - 1) / side
    (their_gradient,), (our_gradient,) = (torch.autograd.grad(value.sum(), x) for value in (theirs, ours))
    return {
        "cosine": abs((theirs / ours).item() - 1),
        "total_variation": abs((attacker.regularizers[0](x) / prior).item() - 1),
        "gradient": float((their_gradient - our_gradient).norm() / our_gradient.norm()),
    }


@pytest.mark.parametrize("case", [case.parameter for case in CASES if case.name == "lenet-zhu"])
def test_case(benchmark, breaching, case):
    duel = case.duel()
    seen = duel.observation
    start = start_of(0, (1, *seen.task.input_shape), torch.float32)
    attacker, server, shared = peer_of(breaching, seen, ITERATIONS, duel.attack.tv_weight)
    apart = same_objective(attacker, server, shared, seen)
    assert max(apart.values()) < 1e-4, f"breaching and this engine do not minimise the same: {apart}"

    def peer():
        _, stats = attacker.reconstruct(server, shared, {}, initial_data=start)
        return len(stats["Trial_0_Val"])

    assert peer() == ITERATIONS
    _, figures = benchmark.pedantic(duel.figures, (case.stretch, peer), rounds=1)
    benchmark.extra_info.update(kind="peer", name=case.name, disagreement=apart, **figures)
