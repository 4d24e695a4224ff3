"""What noise costs an attacker is known: where the law of the error holds, and what holds where it does not."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from attacks.analytic.linear_layer import LinearLayer, inputs_behind
from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from defenses.chain import Chain
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.task import Batch, Classifier, Normalise, Task

DRAWS = 200
DEFENSES = {
    "dp_sgd": (DpSgd(clip_norm=1.0, noise_multiplier=0.05),),
    "clipping and noise": (NormClipping(clip_norm=1.0), GaussianNoise(std=0.05)),
}


class OneLogitAndZero(nn.Module):
    """Logits (b 1) to (b 2), the second one zero."""

    def forward(self, logits):
        return F.pad(logits, (0, 1))


def linear_task():
    """A loss that is <w, x> itself: with "probabilities" (-1, 1) the cross-entropy is the first logit less the second.

    The gradient of w is the image; the 192 pixels lie in [0, 1] and are not normalised.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 1, bias=False), OneLogitAndZero())
    model = Classifier(Normalise((0.0,), (1.0,)), network).eval().double()
    task = Task(model, 2, (3, 8, 8))
    params = {name: p.detach() for name, p in model.named_parameters()}
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return task, params, Batch(image, torch.tensor([[-1.0, 1.0]], dtype=torch.float64))


def released(parts, task, params, batch):
    """What the client sends in every draw of its noise: name -> (draws, ...)."""
    chain = Chain(parts)
    draws = [chain.update(task, params, batch, torch.Generator().manual_seed(seed)) for seed in range(DRAWS)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in params}


@pytest.mark.parametrize("parts", DEFENSES.values(), ids=DEFENSES)
def test_the_error_behind_a_linear_loss_is_chi_square_with_a_degree_of_freedom_per_pixel(parts):
    """N MSE / (s^2 |x|^2) for the attacker who rescales the clipped, noisy gradient by |x|; 200 draws."""
    task, params, batch = linear_task()
    x, n, std = batch.images.flatten(), batch.images.numel(), 0.05
    assert float(x.norm()) > 1  # the clipping bites
    [noisy] = released(parts, task, params, batch).values()
    mse = (noisy.view(DRAWS, n) * x.norm() - x).square().mean(1)
    statistic = (n * mse / (std**2 * x.norm() ** 2)).numpy()
    assert stats.kstest(statistic, stats.chi2(n).cdf).pvalue > 0.01
    # The test has power: a deviation that is wrong by a twentieth is seen.
    assert stats.kstest(statistic * 1.05**2, stats.chi2(n).cdf).pvalue < 1e-3


def mlp_task():
    """A perceptron of 16 hidden neurons in float64 and the first of the digits, 64 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    data = load_dataset("digits")
    model = Classifier(Normalise((0.0,), (1.0,)), network).eval().double()
    params = {name: p.detach() for name, p in model.named_parameters()}
    batch = Batch(data.images([0]).double(), data.labels[:1])
    return Task(model, 10, (1, 8, 8)), params, batch


def test_behind_the_first_layer_of_an_mlp_the_error_is_that_of_the_weighted_rows():
    """The mean over 200 releases of our client and attack agrees with 20,000 draws of numpy; chi-square does not hold.

    The estimate is sum_i db_i dW_i / sum_i db_i^2 with db_i = c a_i + e_i and dW_i = c a_i x + E_i: a the slopes of
    the neurons, c the clipping, e and E noise of deviation s.
    """
    task, params, batch = mlp_task()
    std, x = 0.02, batch.images.flatten()
    sent = released((DpSgd(clip_norm=1.0, noise_multiplier=std),), task, params, batch)
    weight, bias = sent["network.1.weight"], sent["network.1.bias"]
    plain = torch.einsum("ti,tid->td", bias, weight) / bias.square().sum(1, keepdim=True)
    estimate = torch.stack([inputs_behind(w, b, 1)[0] for w, b in zip(weight, bias, strict=True)])
    assert float((estimate - plain).abs().max()) < 1e-12
    seen = Observation(task, params, sent, batch.labels.expand(DRAWS, 1), ThreatModel())
    found = LinearLayer().reconstruct(seen, list(range(DRAWS))).images
    assert float((found.flatten(1) - plain.clamp(0, 1)).abs().max()) < 1e-12

    whole = task.gradient(params, batch)
    length = float(torch.cat([g.flatten() for g in whole.values()]).norm())
    slopes = whole["network.1.bias"].numpy() * min(1.0, 1.0 / length)
    mse = (estimate - x).square().mean(1).numpy()
    expected = weighted_rows_error(slopes, x.numpy(), std, 20_000)
    standard_error = (mse.var(ddof=1) / DRAWS + expected.var(ddof=1) / len(expected)) ** 0.5
    assert abs(mse.mean() - expected.mean()) < 3 * standard_error
    assert standard_error < 0.05 * expected.mean()
    statistic = 64 * mse / (std**2 * float(x.square().sum()))
    assert stats.kstest(statistic, stats.chi2(64).cdf).pvalue < 1e-9


def weighted_rows_error(slopes, x, std, draws):
    """The mean squared error (draws,) of the weighted estimate, from numpy's own noise."""
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(draws // 1000):
        bias = slopes + std * rng.standard_normal((1000, len(slopes)))
        # The sum over rows of bias x noise is normal with deviation s |bias|: there is no need to draw E itself.
        power = np.square(bias).sum(1, keepdims=True)
        noise = std * np.sqrt(power) * rng.standard_normal((1000, len(x)))
        found = (bias @ slopes)[:, None] / power * x + noise / power
        errors.append(np.square(found - x).mean(1))
    return np.concatenate(errors)
