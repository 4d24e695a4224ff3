"""The sections of a grid file that ask for accuracy and certificates, key by key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt

from bench.settings import Number, Positive, Section, Seeds


class Utility(Section):
    """Federated training with every defense: its rounds, its server (`bench.federated.Server`), what is asked of it.

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
        """What a row of results repeats."""
        return self.model_dump(exclude={"seeds"})

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the trained weights."""
        return self.model_dump(exclude={"seeds", "least_accuracy", "delta"})


class Certificate(Section):
    """A test of every defense that proves something: among so many `candidates`, so many `trials`.

    See `bench.certificates`.
    """

    candidates: Annotated[StrictInt, Field(ge=2)] = 20
    trials: Positive = 200

    @property
    def described(self) -> dict[str, Any]:
        """What a row of results repeats, and what decides the result."""
        return self.model_dump()

    identity = described
