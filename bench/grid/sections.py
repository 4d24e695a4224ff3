"""The sections of a grid file, key by key, with type and range: attacks, jobs, and the board."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    create_model,
    model_serializer,
    model_validator,
)

from attacks.threat import Switch, ThreatModel, switches
from bench.data.catalogue import check_dataset
from bench.errors import ConfigurationError
from defenses.schedule import Mode, Schedule

if TYPE_CHECKING:
    from bench.models.weights import WeightsSpec

Positive = Annotated[StrictInt, Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]


def as_list(value: object) -> list[object]:
    """A single value stands for the list of it."""
    return list(value) if isinstance(value, list | tuple) else [value]


def without_duplicates(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values without duplicates, in order; raises ValueError when there is none."""
    if not values:
        raise ValueError("is empty; give at least one")
    return tuple(dict.fromkeys(values))


def _each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(without_duplicates(seeds)) < len(seeds):
        raise ValueError(f"has duplicates: {list(seeds)}; name every seed once")
    return seeds


Seeds = Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], AfterValidator(_each_once)]


def _check_dataset(name: str, parameters: dict[str, object]) -> None:
    try:
        check_dataset(name, {key: value for key, value in parameters.items() if value is not None})
    except ConfigurationError as error:
        raise ValueError(f": {error}") from error


@dataclass(frozen=True)
class Since:
    """Marks a key that was added after boards were published, in `Annotated`: it is written only away from its default.

    So the resolved configuration of a published board stays what its entries state.
    """

    round: int
    """The round of boards after which the key joined."""


class GridSection(BaseModel):
    """A table of the grid file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = {
            name
            for name, field in type(self).model_fields.items()
            if any(isinstance(mark, Since) for mark in field.metadata)
            and getattr(self, name) == field.get_default(call_default_factory=True)
        }
        return {name: value for name, value in handler(self).items() if name not in later}


class DatasetSpec(GridSection):
    """The images: a name of `leakboard list datasets`, and for datasets on disk where they are."""

    name: StrictStr
    root: StrictStr | None = None
    download: StrictBool = False
    size: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _takes_these(self) -> DatasetSpec:
        _check_dataset(self.name, {"root": self.root, "download": self.download or None, "size": self.size})
        return self


class Weights(GridSection):
    """The model's weights: untrained (all None), trained here for `epochs` on `dataset`, or a checkpoint.

    `dataset` None is the training half of the grid's own dataset; `root`, `download` and `size` are of `dataset`.
    """

    epochs: Positive | None = None
    dataset: StrictStr | None = None
    root: StrictStr | None = None
    download: StrictBool | None = None
    size: Positive | None = None
    checkpoint: StrictStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: object) -> object:
        if isinstance(value, str):
            if value == "untrained":
                return {}
            if "/" not in value and not value.endswith((".safetensors", ".pt", ".pth")):
                raise ValueError(f"must be 'untrained', a number of epochs or a checkpoint's path, got {value!r}")
            return {"checkpoint": value}
        return {"epochs": value} if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _is_one_recipe(self) -> Weights:
        given = self.model_dump(exclude_none=True)
        if self.checkpoint is not None and len(given) > 1:
            raise ValueError(f"checkpoint stands alone; drop {', '.join(given.keys() - {'checkpoint'})}")
        if self.dataset is None and given.keys() & {"root", "download", "size"}:
            raise ValueError("root, download and size need a dataset: the name of what to train on")
        if self.dataset is not None:
            if self.epochs is None:
                raise ValueError("dataset needs epochs: for how long to train on it")
            _check_dataset(self.dataset, {key: given.get(key) for key in ("root", "download", "size")})
        return self

    @property
    def label(self) -> str:
        """`untrained`, `epochs=20`, `epochs=20 on cifar10` or the checkpoint's path."""
        if self.epochs is None:
            return self.checkpoint or "untrained"
        return f"epochs={self.epochs}" + (f" on {self.dataset}" if self.dataset else "")

    @property
    def spec(self) -> WeightsSpec:
        """The same for the room of models, which imports torch."""
        from bench.models.weights import WeightsSpec

        opened = {"root": self.root, "download": self.download, "size": self.size}
        return WeightsSpec(
            self.label,
            epochs=self.epochs,
            checkpoint=Path(self.checkpoint).expanduser() if self.checkpoint else None,
            dataset=self.dataset,
            parameters={key: value for key, value in opened.items() if value is not None},
        )


class Public(GridSection):
    """The server's public images where `threat.public` grants them: at most `count`, from the half of a training set.

    A thousand others of that half, or a fifth of a small one, are held out for the control `same_class`. `dataset` None
    is the grid's own; `root`, `download` and `size` are of `dataset`. Copies of attacked images are left out, and
    refused in a `dataset` that is named. Weights are then trained on the other half of the same training set.
    """

    count: Positive = 10_000
    dataset: StrictStr | None = None
    root: StrictStr | None = None
    download: StrictBool | None = None
    size: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _takes_these(self) -> Public:
        given = {key: getattr(self, key) for key in ("root", "download", "size")}
        if self.dataset is not None:
            _check_dataset(self.dataset, given)
        elif any(value is not None for value in given.values()):
            raise ValueError("root, download and size need a dataset: the name of the public set")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """The choices that decide the images, beside the attacked ones."""
        return self.model_dump(exclude={"root", "download"}, exclude_none=True)


def kind_of(switch: Switch) -> Any:
    """The type of a field of the threat model, strict, as files of grids and entries are read."""
    if switch.within is not None:
        return Annotated[StrictInt, Field(ge=switch.within[0], le=switch.within[-1])]
    return StrictBool if switch.kind is bool else switch.kind


def _axis(switch: Switch) -> Any:
    """The type of the key that lists values of a field of the threat model, and its default."""
    axis = Annotated[tuple[kind_of(switch), ...], BeforeValidator(as_list), AfterValidator(without_duplicates)]
    # Published configurations hold the key of every switch of their time.
    return (axis if switch.since < 2 else Annotated[axis, Since(switch.since)]), (switch.default,)


_Axes: Any = create_model("_Axes", __base__=GridSection, **{switch.name: _axis(switch) for switch in switches()})


class Threat(_Axes):
    """The server's knowledge; each key is an axis."""

    @property
    def models(self) -> list[ThreatModel]:
        """Every combination, the first key slowest."""
        axes = (getattr(self, switch.name) for switch in switches())
        return [ThreatModel(*combination) for combination in itertools.product(*axes)]


class Client(GridSection):
    """The client's published work before any defense changes it, as in `defenses.schedule.Schedule`.

    `mode` is an axis: by which statistics the client's batch-norm layers normalise, and with them the attacker's.
    """

    images: Positive = 1
    epochs: Annotated[StrictInt, Field(ge=0)] = 0
    batch_size: Positive | None = None
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-3
    mode: Annotated[tuple[Mode, ...], BeforeValidator(as_list), AfterValidator(without_duplicates)] = ("eval",)

    @property
    def schedule(self) -> Schedule:
        return Schedule(**self.model_dump(exclude={"mode"}))


class Engine(GridSection):
    """The way in which a run is computed: no key changes which result is asked for, so none enters a cell's id.

    `chunk`: trials in one tensor program; `timeout`: seconds a block may take; `threads`: of the CPU. None leaves
    the choice to the engine. `execution` and `precision` are those of `attacks.engine.execution`; a result of one
    precision is stale in another.
    """

    chunk: Positive | None = None
    timeout: Annotated[Number, Field(gt=0)] | None = None
    threads: Positive | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    execution: Literal["auto", "eager", "compile", "graph"] = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"


class Expect(GridSection):
    """The run fails unless `attack`, undefended, beats the strongest control by `gain_db` in mean PSNR.

    Not judged in a grid without that attack.
    """

    attack: StrictStr
    gain_db: Number


Metric = Literal["psnr_db", "ssim", "identified", "label_accuracy", "accuracy", "epsilon", "certificate"]


class EntryLimits(GridSection):
    """The most that an entry may hold: defenses in one entry, images of one update, local steps of one client."""

    defenses: Positive = 20
    images_per_update: Positive = 20
    local_steps: Positive = 100


class BoardRules(GridSection):
    """A board's rules; its questions are those of the grid beside it.

    `summary` is one sentence. `required` are the labels of the grid's attacks, all of which every defense must face.
    `margin`, `minimum_images` and `alpha` are those of `leaderboards.ranking.verdicts.RankingRule`. `metrics` are what
    an entry must have measured wherever it can be. `rules` names the rules of floors, verdicts and ranks: a board is
    judged by those of its time.
    """

    title: StrictStr
    summary: StrictStr
    required: Annotated[tuple[StrictStr, ...], AfterValidator(without_duplicates)]
    metrics: Annotated[tuple[Metric, ...], AfterValidator(without_duplicates)] = ("ssim", "psnr_db", "identified")
    margin: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    minimum_images: Positive = 100
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    limits: EntryLimits = EntryLimits()
    rules: Annotated[Literal[1, 2], Since(2)] = 1


STATEMENT_LENGTH = 200
"""Characters of a name and of a sentence about code, at most: here, and in the review of a board's entry."""
Statement = Annotated[StrictStr, StringConstraints(strip_whitespace=True, min_length=1, max_length=STATEMENT_LENGTH)]


class CodeReading(GridSection):
    """A reader's statement about a plugin's code: without one, or a built-in proof, its results have no rank.

    Boards take no such statement: there the review of an entry says who has read it.
    """

    defense: Statement
    read_by: Statement
    read: Statement


def _read_once(readings: tuple[CodeReading, ...]) -> tuple[CodeReading, ...]:
    names = [own.defense for own in readings]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"[{index}].defense: {name!r} is there twice; say in one sentence what its code does")
    return readings


Readings = Annotated[tuple[CodeReading, ...], AfterValidator(_read_once)]


class Utility(GridSection):
    """Federated training with every defense: its rounds, its server (`bench.price.federated.Server`), what is asked of
    it.

    `clients` a round; `seeds` are of weights, dealing and noise; nobody is ranked unless undefended training reaches
    `least_accuracy`, a fraction; epsilon is stated at `delta`.
    """

    rounds: Positive = 2000
    clients: Positive = 50
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[Number, Field(gt=0)] = 0.01
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    seeds: Seeds = (0, 1, 2)
    least_accuracy: Annotated[Number, Field(ge=0, le=1)] | None = None
    delta: Annotated[Number, Field(gt=0, lt=1)] = 1e-5

    @property
    def described(self) -> dict[str, Any]:
        """Columns that a row of results repeats."""
        return self.model_dump(exclude={"seeds"})

    @property
    def identity(self) -> dict[str, Any]:
        """All choices that decide the trained weights."""
        return self.model_dump(exclude={"seeds", "least_accuracy", "delta"})


class CertificateTest(GridSection):
    """A test of every defense that proves something: among so many `candidates`, so many `trials`.

    See `bench.price.certificates`.
    """

    candidates: Annotated[StrictInt, Field(ge=2)] = 20
    trials: Positive = 200

    @property
    def described(self) -> dict[str, Any]:
        """Columns that a row of results repeats; they are also all choices that decide the result."""
        return self.model_dump()

    identity = described
