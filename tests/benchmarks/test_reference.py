"""The plain loops are oracles: in float64 the attacks walk exactly where they walk."""

import pytest
import torch
from clients import observed
from reference import invert, invert_euclidean, start_of

from attacks.optimisation.euclidean import Euclidean
from attacks.optimisation.inverting_gradients import InvertingGradients

NOISE = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 7])


@pytest.mark.parametrize("signed", [True, False])
def test_matching_a_difference_of_weights_equals_the_plain_loop_over_five_local_steps(signed):
    seen = observed("lenet-zhu", NOISE, LABELS, epochs=5, dtype=torch.float64)
    found = InvertingGradients(iterations=8, tv_weight=1e-2, signed=signed).reconstruct(seen, [5, 6])
    for lane, seed in enumerate((5, 6)):
        update = {name: u[lane] for name, u in seen.updates.items()}
        start = start_of(seed, (1, 3, 16, 16), torch.float64)
        settings = {"iterations": 8, "tv_weight": 1e-2, "signed": signed}
        x, values = invert(seen.task, seen.params, update, seen.labels[lane], start, **settings)
        assert float((found.images[lane] - seen.task.denormalise(x)).abs().max()) < 1e-6
        assert [float(found.trace[i][lane]) for i in (0, 1, 2, 4)] == pytest.approx([values[i] for i in (0, 1, 2, 4)])


def test_the_euclidean_attack_equals_the_plain_loop_at_every_closure_of_two_outer_steps():
    seen = observed("lenet-zhu", NOISE, LABELS, dtype=torch.float64)
    found = Euclidean(iterations=2).reconstruct(seen, [5, 6])
    for lane, seed in enumerate((5, 6)):
        update = {name: u[lane] for name, u in seen.updates.items()}
        start = start_of(seed, (1, 3, 16, 16), torch.float64)
        _, values = invert_euclidean(seen.task, seen.params, update, seen.labels[lane], start, outer_steps=2)
        ticks = [tick for tick in found.trace if tick < len(values)]
        assert len(ticks) >= 6
        assert [float(found.trace[t][lane]) for t in ticks] == pytest.approx([values[t] for t in ticks], rel=1e-5)
