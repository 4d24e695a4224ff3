"""A grid file or preset, checked and complete, with its models: what `plan` and `run` work from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tomli_w
from pydantic import (
    BeforeValidator,
    InstanceOf,
    StrictBool,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from attacks.threat import ThreatModel
from bench.errors import ConfigurationError, suggest
from bench.grid.reading import GridSource, add_methods, apply_override, list_mistakes, read_grid
from bench.grid.sections import (
    BoardRules,
    CertificateTest,
    Client,
    CodeReading,
    DatasetSpec,
    Engine,
    Expect,
    GridSection,
    Positive,
    Public,
    Readings,
    Seeds,
    Since,
    Threat,
    Utility,
    Weights,
    as_list,
    without_duplicates,
)
from bench.models.catalogue import MODELS, check_model
from bench.registry.registry import Registry
from bench.registry.specs import ChainSpec, MethodSpec, expand, parse


def models(value: object) -> list[MethodSpec]:
    """The models that one value of a grid's list names; raises ConfigurationError."""
    # A model's name may hold hyphens and dots, so that its call is read with another name in place.
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([\w.-]+)\s*(\(.*\))\s*", value, re.DOTALL)):
        name, parameters = match[1], parse(f"model{match[2]}")[0][1]
    else:
        (name, parameters), *more = parse(value)
        if more:
            raise ConfigurationError(f"models cannot be chained, got {value!r}")
    specs = expand((name, parameters), sequences={"hidden"})
    for spec in specs:
        if name in MODELS:  # Newer names of torchvision are known when the model is built.
            check_model(name, spec.parameters)
    return specs


_Spec = InstanceOf[MethodSpec]


class Grid(GridSection):
    """The methods that meet and the images they meet on: the cells are the product of all lists.

    Attacks and the parts of defenses hold all their parameters; models hold those that were written.
    """

    dataset: DatasetSpec
    models: tuple[_Spec, ...]
    weights: Annotated[tuple[Weights, ...], BeforeValidator(as_list)] = (Weights(),)
    images: Positive
    seeds: Seeds = (0,)
    attacks: tuple[_Spec, ...]
    defenses: tuple[tuple[_Spec, ...], ...]
    threat: Threat = Threat()
    public: Annotated[Public, Since(2)] = Public()
    client: Client = Client()
    controls: StrictBool = True

    @field_validator("models", mode="before")
    @classmethod
    def _expand_models(cls, values: object) -> tuple[MethodSpec, ...]:
        specs: list[MethodSpec] = []
        for index, value in enumerate(as_list(values)):
            try:
                specs += models(value)
            except ConfigurationError as error:
                raise ConfigurationError(f"[{index}]: {error}") from error
        return tuple(specs)

    @field_validator("attacks", mode="before")
    @classmethod
    def _expand_attacks(cls, values: object, info: ValidationInfo) -> tuple[MethodSpec, ...]:
        return tuple(attack for [attack] in _registry(info).expand("attack", as_list(values)))

    @field_validator("defenses", mode="before")
    @classmethod
    def _expand_defenses(cls, values: object, info: ValidationInfo) -> tuple[ChainSpec, ...]:
        return tuple(_registry(info).expand("defense", as_list(values)))

    @field_validator("models", "weights", "attacks", "defenses")
    @classmethod
    def _not_empty(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return without_duplicates(values)

    @field_serializer("models")
    def _write_models(self, models: tuple[MethodSpec, ...]) -> list[object]:
        return [{"name": m.name, **m.parameters} if m.items else m.name for m in models]

    @field_serializer("weights")
    def _write_weights(self, weights: tuple[Weights, ...]) -> list[object]:
        return [w.model_dump(exclude_none=True) or "untrained" for w in weights]

    @field_serializer("attacks")
    def _write_attacks(self, attacks: tuple[MethodSpec, ...]) -> list[str]:
        return [attack.call for attack in attacks]

    @field_serializer("defenses")
    def _write_defenses(self, defenses: tuple[ChainSpec, ...]) -> list[str]:
        return [" | ".join(part.call for part in chain) for chain in defenses]


class Config(GridSection):
    """A whole run; `name` is the preset's or the file's, and the run's folder unless another is asked for.

    Without `utility` nothing is trained, without `certificate` no proof is put to a test. `board` is there when the
    grid is a board's.
    """

    name: StrictStr
    board: BoardRules | None = None
    grid: Grid
    utility: Utility | None = None
    certificate: CertificateTest | None = None
    engine: Engine = Engine()
    expect: Expect | None = None
    reviews: Annotated[Readings, Since(2)] = ()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"\w[\w .+-]*", name):
            rule = "must be letters, digits, '-', '_', '+', '.' and spaces"
            raise ValueError(f"{rule}, got {name!r}; it names the run's folder: rename the file, or --set name=another")
        return name

    @field_validator("expect")
    @classmethod
    def _expects_a_known_attack(cls, expect: Expect | None, info: ValidationInfo) -> Expect | None:
        known = [entry.name for entry in _registry(info).descriptions("attack")]
        if expect is not None and expect.attack not in known:
            raise ValueError(f".attack: unknown attack {expect.attack!r}; {suggest(expect.attack, known)}")
        return expect

    @field_validator("reviews")
    @classmethod
    def _are_of_known_defenses(cls, reviews: tuple[CodeReading, ...], info: ValidationInfo) -> tuple[CodeReading, ...]:
        known = [entry.name for entry in _registry(info).descriptions("defense")]
        for index, own in enumerate(reviews):
            if own.defense not in known:
                raise ValueError(
                    f"[{index}].defense: unknown defense {own.defense!r}, a name without parameters; "
                    f"{suggest(own.defense, known)}"
                )
        return reviews

    @property
    def threats(self) -> list[ThreatModel]:
        """The threat models of the grid."""
        return self.grid.threat.models

    def resolved(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, strings and numbers, defaults included; None is left out."""
        return self.model_dump(exclude_none=True)


def load_config(
    spec: GridSource,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
    *,
    defenses: Sequence[str] = (),
    attacks: Sequence[str] = (),
) -> Config:
    """The preset of this name, the TOML file at this path, or the text given, with `KEY=VALUE` overrides applied.

    Its methods are those of the `registry`, by default the built-ins and installed packages. `defenses` and `attacks`
    join those of the grid. Imports the methods that it names. Raises ConfigurationError for whatever is wrong with it.
    """
    registry = registry or Registry()
    registry.descriptions("attack")  # Runs the plugin files: one that cannot be used is then named once.
    table, name, source = read_grid(spec, overrides)
    for override in overrides:
        apply_override(table, override, Config)
    add_methods(table, spec, defenses, attacks)
    return _validated({"name": name, **table}, source, registry)


def to_toml(config: Config) -> str:
    """The text of `run.toml`; `from_toml` gives an equal config back."""
    return tomli_w.dumps(config.resolved())


def from_toml(text: str, registry: Registry | None = None, source: str = "run.toml") -> Config:
    """The config of a `run.toml`; the registry holds the plugins of the run. Raises ConfigurationError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not valid TOML: {error}") from error
    return _validated(table, source, registry or Registry())


def _validated(table: Mapping[str, Any], source: str, registry: Registry) -> Config:
    try:
        return Config.model_validate(table, context={"registry": registry})
    except ValidationError as error:
        raise ConfigurationError(list_mistakes(error, Config, source)) from error


def _registry(info: ValidationInfo) -> Registry:
    context = info.context or {}
    return context["registry"] if "registry" in context else Registry()
