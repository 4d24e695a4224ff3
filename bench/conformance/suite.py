"""The promises of every attack and every defense, as one table, and a method held to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.conformance import attacks, defenses, held_out, methods, surrogates
from bench.conformance.cases import (
    Subject,
    everywhere,
    gradients,
    in_float64,
    itself,
    plain,
    recovered,
    two_images,
)
from bench.conformance.findings import Broken, Finding, Rule
from bench.conformance.session import ask
from bench.errors import ConfigurationError, suggest
from bench.registry.presets import unfolded
from bench.registry.registry import Registry, UnknownName
from bench.registry.signatures import Parameter, parameters_of
from bench.registry.specs import parse

CONSTRUCTS = "it imports, has exactly one role, and can be constructed"
SHORT = {"iterations": 2}
"""Parameters of effort -> what the rules set them to, unless the call does."""

OF_ALL = (
    Rule("documented", "the docstring says what it does and names a source", itself, methods.is_documented),
    Rule("parameters", "everything that can be set is an annotated field", itself, methods.has_typed_parameters),
)
LAST = Rule("run", "a grid of it ends with the status ok", itself, methods.runs_as_a_cell)
"""Asked only of a method that breaks no other rule: it would fail for the same reason once more."""
RULES = {
    "defense": (
        *OF_ALL,
        Rule("shapes", "keeps names, shapes and types, and stays finite", two_images, defenses.keeps_shapes),
        Rule("generator", "draws from rng alone", two_images, defenses.draws_from_its_generator),
        Rule("arguments", "writes into no argument", two_images, defenses.leaves_its_arguments),
        Rule("seeds", "the same seed gives the same bytes", two_images, defenses.repeats_itself),
        Rule("draws", "its noise takes a number of rng for each entry", in_float64, defenses.draws_what_it_adds),
        Rule("neutral", "at its neutral parameters it is none", two_images, defenses.is_neutral),
        Rule("extremes", "finite on zeros and on huge values", two_images, defenses.bears_extremes),
        Rule("schedule", "takes the local steps of the schedule", two_images, defenses.honours_the_schedule),
        Rule("surrogate", "an attack can simulate and differentiate it", two_images, surrogates.surrogate_is_usable),
        Rule(
            "device",
            "its surrogate follows its arguments (on the meta device)",
            two_images,
            surrogates.surrogate_follows_its_arguments,
        ),
        Rule("prediction", "its surrogate says what it sends", in_float64, surrogates.predicts_what_is_sent),
        Rule(
            "slopes",
            "its surrogate's slopes are those of what it sends",
            in_float64,
            held_out.slopes_follow_the_release,
        ),
        Rule(
            "residual",
            "its surrogate leaves nothing but the noise that it states",
            in_float64,
            held_out.residual_is_the_stated_noise,
        ),
        Rule("many", "many clients at once are each alone", two_images, surrogates.many_at_once_are_each_alone),
        Rule("privacy", "what it proves is a Guarantee", two_images, surrogates.proof_is_honest),
        LAST,
    ),
    "attack": (
        *OF_ALL,
        Rule("check", "says what is impossible by UnsupportedPair alone", everywhere, attacks.says_what_is_impossible),
        Rule("images", "finite images in [0, 1], of the right shape and type", everywhere, attacks.finds_images),
        Rule("labels", "possible labels, and the given ones", everywhere, attacks.finds_possible_labels),
        Rule(
            "objective", "one finite objective per trial, from the start on", everywhere, attacks.states_its_objective
        ),
        Rule("agreement", "the objective at its answer is the one reported", plain, attacks.objective_agrees),
        Rule("features", "recovered features are those that it names", everywhere, attacks.features_are_those_it_names),
        Rule("alone", "a trial attacked alone equals it in a batch", gradients, attacks.trials_do_not_mix),
        Rule("seeds", "depends on its seeds alone", recovered, attacks.depends_on_its_seeds_alone),
        Rule("observation", "leaves the observation as it was", recovered, attacks.leaves_the_observation),
        Rule("control", "a control does not look at the update", recovered, attacks.control_is_blind),
        Rule("device", "works on the device of the observation", plain, attacks.follows_the_device),
        LAST,
    ),
}
"""Kind -> its rules, in the order in which they are asked."""


def conformance(call: str, *, plugins: Sequence[str | Path] = ()) -> list[Finding]:
    """Hold a method to every rule of its kind: `call` is its name, or its name with parameters.

    `plugins` are files, as for `run`. The global random state is given back as it was. Raises ConfigurationError for
    an unknown name, a wrong parameter, or one that is missing. A rule that is broken is a finding that `failed`.
    """
    registry = Registry(plugins)
    findings: list[Finding] = []
    for kind in kinds_of(call, registry):
        hold(kind, call, registry, findings.append)
    return findings


def kinds_of(call: str, registry: Registry) -> list[str]:
    """The kinds, attack or defense or both, that have a method of this name; raises ConfigurationError if none has."""
    parts = parse(call)
    if len(parts) > 1:
        raise ConfigurationError(f"{call!r} is a chain; check its parts one by one")
    name, _ = unfolded(parts[0])
    known = {kind: [entry.name for entry in registry.descriptions(kind)] for kind in RULES}
    kinds = [kind for kind, names in known.items() if name in names]
    if not kinds:
        raise UnknownName(f"unknown method {name!r}; {suggest(name, [*known['attack'], *known['defense']])}")
    return kinds


def title_of(kind: str, call: str, registry: Registry) -> str:
    """The checked method in words: with all its parameters, as far as it can be constructed, and its origin."""
    [(name, _)] = parse(call)
    name = unfolded((name, {}))[0] if kind == "attack" else name
    [origin] = [entry.origin for entry in registry.descriptions(kind) if entry.name == name]
    try:
        return f"{kind} {subject_of(kind, call, registry).call}, {origin}"
    except Broken:
        return f"{kind} {call}, {origin}"


def hold(kind: str, call: str, registry: Registry, on_finding: Callable[[Finding], None]) -> None:
    """Hand one finding per rule to `on_finding` as they come; raises ConfigurationError for a mistake in the call."""
    try:
        subject = subject_of(kind, call, registry)
    except Broken as broken:
        on_finding(Finding("constructs", "failed", str(broken)))
        for rule in RULES[kind]:
            on_finding(Finding(rule.name, "not applicable", "it cannot be constructed"))
        return
    on_finding(Finding("constructs", "passed", CONSTRUCTS))
    ask(RULES[kind], subject, on_finding)


def subject_of(kind: str, call: str, registry: Registry) -> Subject:
    """The method constructed; raises `Broken` where that fails by its own fault, ConfigurationError by the call's."""
    [(name, parameters)] = parse(call)
    if kind == "attack":
        name, parameters = unfolded((name, parameters))
    try:
        taken = parameters_of(registry.cls(kind, name))
    except ConfigurationError as error:
        raise Broken(str(error)) from error
    missing = [p for p in taken if p.required and p.name not in parameters]
    if missing and parameters.keys() <= {p.name for p in taken}:
        wanted = ", ".join(f"{p.name}=..." for p in missing)
        raise ConfigurationError(
            f"{kind} {name}: {missing[0].name} is required ({missing[0].type}); check {name}({wanted})"
        )
    try:
        found = registry.expand(kind, [{"name": name, **parameters, **_short(kind, call, taken)}])
        if len(found) > 1:
            raise ConfigurationError(f"{call!r} names {len(found)} methods; give one value for each parameter")
        [[spec]] = found
        return Subject(kind, spec.call, registry.build(kind, spec), registry)
    except ConfigurationError as error:
        message = str(error).removeprefix("[0]: ")
        raise (ConfigurationError if parameters else Broken)(message) from error


def _short(kind: str, call: str, taken: Sequence[Parameter]) -> dict[str, int]:
    """The parameters of an attack that are shortened: those that it has and the call does not set."""
    [(_, written)] = parse(call)
    known = {parameter.name for parameter in taken} - written.keys()
    return {name: value for name, value in SHORT.items() if kind == "attack" and name in known}
