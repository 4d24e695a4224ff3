"""Many clients at once send what each sends alone: training uses the same defense as the attacked update."""

import pytest
import torch

from defenses import chain as chains
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Batch


class Halved(Defense):
    """A plugin that knows of one client only, and draws."""

    def transform(self, task, update, rng):
        return {
            name: u / 2 + torch.rand((), generator=rng, dtype=u.dtype) + torch.rand(()) for name, u in update.items()
        }


CHAINS = {
    "none": (NoDefense(),),
    "pruning": (GradientPruning(0.9),),
    "pruning-model": (GradientPruning(0.5, "model"),),
    "clipping-noise": (NormClipping(0.01), GaussianNoise(0.1)),
    "clipping-layer": (NormClipping(0.01, "layer"),),
    "dp_sgd": (DpSgd(0.05, 0.7),),
    "dp_sgd-pruning": (DpSgd(0.05, 0.7), GradientPruning(0.5)),
    "local": (LocalEpochs(2, None, 0.1),),
    "local-batches": (LocalEpochs(3, 2, 0.1), GaussianNoise(0.1)),
    "local-dp_sgd": (LocalEpochs(2, 2, 0.1), DpSgd(0.05, 0.7)),
    "plugin": (Halved(),),
}


@pytest.mark.parametrize("parts", CHAINS.values(), ids=CHAINS)
def test_many_clients_at_once_send_what_each_of_them_sends_alone(make_task, parts):
    chain = Chain(parts)
    task, params, _ = make_task(chain.schedule(Schedule(images=3)))
    draw = torch.Generator().manual_seed(7)
    batches = Batch(
        torch.rand(4, 3, 1, 8, 8, dtype=torch.float64, generator=draw), torch.randint(5, (4, 3), generator=draw)
    )
    rngs = lambda: [torch.Generator().manual_seed(i) for i in range(4)]
    together = chain.updates(task, params, batches, rngs())
    alone = [
        chain.update(task, params, Batch(*b), r) for *b, r in zip(batches.images, batches.labels, rngs(), strict=True)
    ]
    for name, p in params.items():
        assert together[name].shape == (4, *p.shape)
        torch.testing.assert_close(together[name], torch.stack([a[name] for a in alone]), rtol=1e-9, atol=1e-12)
    assert float((together["network.0.weight"][0] - together["network.0.weight"][1]).abs().max()) > 0


@pytest.mark.parametrize("parts", [(NoDefense(),), (DpSgd(0.05, 0.7),), (LocalEpochs(2, 2, 0.1),)], ids=str)
def test_clients_with_probabilities_for_labels_send_the_same_at_once_and_alone(make_task, parts):
    chain = Chain(parts)
    task, params, _ = make_task(chain.schedule(Schedule(images=3)))
    draw = torch.Generator().manual_seed(7)
    images = torch.rand(4, 3, 1, 8, 8, dtype=torch.float64, generator=draw)
    labels = torch.rand(4, 3, 5, dtype=torch.float64, generator=draw).softmax(-1)
    rngs = lambda: [torch.Generator().manual_seed(i) for i in range(4)]
    together = chain.updates(task, params, Batch(images, labels), rngs())
    alone = [chain.update(task, params, Batch(*b), r) for *b, r in zip(images, labels, rngs(), strict=True)]
    for name in params:
        torch.testing.assert_close(together[name], torch.stack([a[name] for a in alone]), rtol=1e-9, atol=1e-12)


def test_many_clients_leave_the_global_generator_and_the_weights_as_they_were(make_task):
    task, params, batch = make_task()
    before, state = {name: p.clone() for name, p in params.items()}, torch.get_rng_state()
    batches = Batch(batch.images.expand(2, *batch.images.shape), batch.labels.expand(2, -1))
    Chain((DpSgd(),)).updates(task, params, batches, [torch.Generator().manual_seed(i) for i in range(2)])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in params.items())


def test_rounding_that_swaps_the_last_entry_kept_is_no_difference():
    mine = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.25])
    theirs = torch.tensor([0.0, 1.0, 0.5, 0.2500001, 0.0])
    assert not chains._differ(mine, theirs, 1.0)
    assert chains._differ(mine, torch.tensor([0.0, 1.0, 0.0, 0.0, 0.25]), 1.0)
    assert chains._differ(mine, torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0]), 1.0)  # one gone, none come
