"""The planted plugins: whoever knows their code has the update back, and the rule that exposes each of them."""

from dataclasses import dataclass, replace

import pytest
import torch
from planted_board import EXPOSED, NAMES, PLANTED, broken_rules

from bench.conformance.cases import Subject, defense_case
from bench.conformance.defenses import applied
from bench.conformance.findings import Broken
from bench.conformance.held_out import check_residual
from bench.conformance.surrogates import simulation_of
from bench.registry.registry import Registry
from bench.registry.specs import MethodSpec
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.surrogate import Surrogate

REGISTRY = Registry(sorted(PLANTED.glob("*.py")))
COUNTER = REGISTRY.cls("defense", "call_counter")
GIVEN = {"only_this_board": {"digest": "no board"}, "only_public": {"listed": "/dev/null"}}


def planted(name, **parameters):
    """The plugin of this name."""
    return REGISTRY.build("defense", MethodSpec.of(name, {**GIVEN.get(name, {}), **parameters}))


def flat(update):
    return torch.cat([u.flatten() for u in update.values()])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def in_order(sent):
    entries = torch.empty_like(flat(sent))
    entries[torch.randperm(len(entries), generator=seeded(2026))] = flat(sent)
    return entries


def without_factors(sent):
    public, found = seeded(2026), []
    for u in sent.values():
        size = 10 ** (4 * torch.rand(u.shape, generator=public, dtype=u.dtype) - 2)
        found.append((u / size / torch.randn(u.shape, generator=public, dtype=u.dtype).sign()).flatten())
    return torch.cat(found)


def without_pad(sent, pad, std):
    return flat({name: u - std * torch.randn(u.shape, generator=pad, dtype=u.dtype) for name, u in sent.items()})


def without_nonce(sent):
    words = next(iter(sent.values())).view(torch.int64).flatten()[:16]
    nonce = sum(int(word & 1) << bit for bit, word in enumerate(words))
    return without_pad(sent, seeded(2026 * 2**16 + nonce), 0.1)


def without_one_of_the_pads(sent):
    tried = [without_pad(sent, seeded(seed), 0.1) for seed in range(256)]
    return min(tried, key=lambda entries: float(entries.abs().sum()))


KNOWN = {
    "call_counter": lambda sent: without_pad(sent, seeded(len(COUNTER.calls) - 1), 0.1),
    "false_surrogate": in_order,
    "key_permutation": in_order,
    "lying_many": flat,
    "nonce_offset": without_nonce,
    "only_public": flat,
    "only_this_board": flat,
    "public_factors": without_factors,
    "public_offset": lambda sent: without_pad(sent, seeded(2026), 1),
    "seed_reader": without_one_of_the_pads,
    "tiny_scale": lambda sent: flat(sent) / 1e-8,
}
"""Name -> the entries of the update, found in a release."""


def undefended_and_sent(name, seed=1000, **parameters):
    case = defense_case(planted(name, **parameters), torch.float64)
    return flat(applied(replace(case, defense=NoDefense()))[0]), applied(case, seed=seed)[0]


@pytest.mark.parametrize("name", NAMES)
def test_conformance_exposes_a_planted_plugin_by_one_rule_or_by_none(name):
    assert broken_rules(Subject("defense", name, planted(name), REGISTRY)) == EXPOSED.get(name, set())


def test_a_public_cipher_that_is_called_the_identity_leaves_no_noise():
    case = defense_case(planted("false_surrogate"), torch.float64)
    with pytest.raises(Broken, match="noise of deviation 0, but what is left has"):
        check_residual(case, simulation_of(case))


def test_noise_stated_as_strong_as_a_cipher_s_residual_does_not_excuse_its_cosine_with_the_update():
    case = defense_case(planted("false_surrogate"), torch.float64)
    with pytest.raises(Broken, match=r"a cosine of -0\.71 with the update"):
        check_residual(case, replace(simulation_of(case), noise_std=0.193))


@dataclass(frozen=True)
class ClippedMask(Defense):
    """Sends 10% of the clipped update's entries, ten times as large, and calls the rest noise."""

    noise_std: float = 0.0
    """Deviation of noise that is added, beside the mask."""
    aside: float = 0.0
    """The part of its magnitudes by which the surrogate errs from the identity."""

    def clipped(self, update):
        length = flat(update).norm()
        return {name: u / length for name, u in update.items()}

    def transform(self, task, update, rng):
        draw = lambda made, u: made(u.shape, generator=rng, dtype=u.dtype)
        return {
            name: 10 * u * (draw(torch.rand, u) < 0.1) + self.noise_std * draw(torch.randn, u)
            for name, u in self.clipped(update).items()
        }

    def surrogate(self, task):
        entries = sum(p.numel() for p in task.model.parameters())
        said = lambda update: {name: u + self.aside * u.abs() for name, u in self.clipped(update).items()}
        return Surrogate(predict=said, noise_std=(9 / entries + self.noise_std**2) ** 0.5)


@pytest.mark.parametrize(
    "mask", [ClippedMask(), ClippedMask(noise_std=0.1), ClippedMask(aside=1e-3)], ids=["plain", "noisy", "aside"]
)
def test_a_mask_that_is_called_noise_of_its_deviation_is_known_by_its_squares(mask):
    """Its residual has the mean square of the stated noise, and no cosine with the update."""
    case = defense_case(mask, torch.float64)
    with pytest.raises(Broken, match=r"the squares of what is added have a correlation of 0\.[13]"):
        check_residual(case, simulation_of(case))


@pytest.mark.parametrize("defense", [GaussianNoise(0.01), GaussianNoise(1.0), DpSgd(), DpSgd(noise_multiplier=5.0)])
def test_honest_noise_has_squares_of_its_own(defense):
    case = defense_case(defense, torch.float64)
    check_residual(case, simulation_of(case))


@pytest.mark.parametrize("name", KNOWN)
def test_whoever_knows_the_code_has_the_update_back(name):
    truth, sent = undefended_and_sent(name)
    assert torch.allclose(KNOWN[name](sent), truth, rtol=1e-9, atol=1e-12)


def test_a_mask_shows_each_entry_that_it_sends():
    truth, sent = undefended_and_sent("identity_surrogate")
    shown = flat(sent) != 0
    assert 0.05 < float(shown.double().mean()) < 0.15
    assert torch.allclose(flat(sent)[shown] / 10, truth[shown])


def test_the_lowest_byte_holds_the_direction_of_every_tensor():
    truth, sent = undefended_and_sent("mantissa", std=100.0)
    read = {name: (u.view(torch.int64) & 255).double() - 128 for name, u in sent.items()}
    expected = truth.split([u.numel() for u in sent.values()])
    for part, tensor in zip(expected, read.values(), strict=True):
        assert torch.allclose(tensor.flatten() / 127 * part.abs().max(), part, atol=float(part.abs().max()) / 250)


def test_signs_are_those_of_the_update():
    truth, sent = undefended_and_sent("steep_sign")
    assert torch.equal(flat(sent).sign(), truth.sign())


def test_one_board_sees_noise_and_others_the_update():
    truth, sent = undefended_and_sent("only_this_board", digest="")
    assert float((flat(sent) - truth).std()) == pytest.approx(10, rel=0.05)


def test_listed_images_are_destroyed(tmp_path):
    from hashlib import sha256

    [image, _] = defense_case(NoDefense(), torch.float64).batch.images
    pixels = (image * 255).round().to(torch.uint8).numpy().tobytes()
    (tmp_path / "listed").write_text(f"{sha256(pixels).hexdigest()}\n")
    _, sent = undefended_and_sent("only_public", listed=str(tmp_path / "listed"))
    assert not flat(sent).any()


def test_every_planted_plugin_is_held_to_what_it_says():
    apart = {"identity_surrogate", "mantissa", "steep_sign"}
    assert set(NAMES) == KNOWN.keys() | apart
