"""What every attack and every defense promises, asked of each one that the registry knows.

The promises are the rules of `bench.conformance.suite`, which plugin authors hold their own methods to.
"""

from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from bench.conformance import test_rules
from bench.conformance.attacks import objective_agrees
from bench.conformance.cases import Subject, plain
from bench.conformance.defenses import NEUTRAL
from bench.conformance.findings import NotApplicable
from bench.conformance.suite import RULES
from bench.registry.registry import Registry
from bench.registry.specs import MethodSpec

# A built-in without a row here fails; so does a row without a method.
ATTACKS = {
    "absolute_matching": {"iterations": 3},
    "black_box_decoder": {},
    "class_mean": {},
    "dataset_mean": {},
    "euclidean": {"iterations": 1, "history": 5},
    "euclidean_adam": {"iterations": 3, "restarts": 2},
    "gaussian_likelihood": {"iterations": 3, "restarts": 2},
    "grey_image": {},
    "informed_matching": {"iterations": 3},
    "inverting_gradients": {"iterations": 3, "restarts": 2},
    "label_rule": {},
    "leak_reader": {},
    "linear_layer": {"iterations": 3},
    "posterior_mean": {},
    "nearest_public": {},
    "prior_only": {"iterations": 3},
    "see_through_gradients": {"iterations": 3, "group_size": 2},
}
DEFENSES = {
    "dp_sgd": {"clip_norm": 0.5, "noise_multiplier": 0.1},
    "gaussian_noise": {"std": 0.1},
    "gradient_pruning": {"ratio": 0.5, "scope": "model"},
    "in_pairs": {},
    "larger_batch": {"examples": 2},
    "local_epochs": {"epochs": 2, "batch_size": 1, "learning_rate": 0.1},
    "mix_up": {"weight": 0.7},
    "none": {},
    "noop": {},
    "norm_clipping": {"clip_norm": 0.1, "scope": "layer"},
    "planted_leak": {},
    "random_mask": {},
    "sign_compression": {"scale": 2.0},
    "zeros": {},
}
IN_A_BOX = (
    "inverting_gradients",
    "gaussian_likelihood",
    "linear_layer",
    "prior_only",
    "absolute_matching",
    "see_through_gradients",
)
REGISTRY = Registry(sorted((Path(__file__).parent / "plugins").glob("*.py")))


@cache
def subject(kind, name):
    """The method with the parameters of its row; rules that look at the same observation share what was found."""
    spec = MethodSpec.of(name, {"attack": ATTACKS, "defense": DEFENSES}[kind][name])
    return Subject(kind, spec.call, REGISTRY.build(kind, spec), REGISTRY)


def rules(kind):
    """The rules of a kind; that a grid of every method runs is asked by other tests at length."""
    return [pytest.param(rule, id=rule.name) for rule in RULES[kind] if rule.name != "run"]


@pytest.mark.parametrize(("kind", "table"), [("attack", ATTACKS), ("defense", DEFENSES)])
def test_every_method_has_a_row_here_and_every_row_a_method(kind, table):
    assert {entry.name for entry in REGISTRY.descriptions(kind)} == table.keys()


@pytest.mark.parametrize("rule", rules("defense"))
@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_keeps_its_promises(name, rule):
    with suppress(NotApplicable):
        test_rules.test_rule(rule, subject("defense", name))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("rule", rules("attack"))
def test_an_attack_keeps_its_promises(name, rule):
    with suppress(NotApplicable):
        test_rules.test_rule(rule, subject("attack", name))


@pytest.mark.parametrize("name", IN_A_BOX)
def test_an_attack_in_a_box_gives_its_answer_the_objective_that_the_referee_is_told(name):
    """Whatever its images touch: the rule excuses those that are clamped afterwards, these attacks need no excuse."""
    cases = [case for case in plain(subject("attack", name)) if case.found.objective is not None]
    assert cases
    for case in cases:
        objective_agrees(case)


@pytest.mark.parametrize("module", NEUTRAL)
def test_a_defense_that_is_known_to_have_neutral_parameters_is_none_there(module):
    [rule] = [rule for rule in RULES["defense"] if rule.name == "neutral"]
    test_rules.test_rule(rule, subject("defense", module.rpartition(".")[2]))
