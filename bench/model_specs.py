"""How models are asked for in a grid: a name, a call or a table, whose lists are axes."""

from __future__ import annotations

import re

from bench.catalogue import MODELS, check_model
from bench.errors import ConfigurationError
from bench.specs import MethodSpec, expand, parse


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
