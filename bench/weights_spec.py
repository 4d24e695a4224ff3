"""How weights are asked for in a grid; torch-free, so that planning stays cheap."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.catalogue import check_dataset
from bench.errors import ConfigurationError, suggest

UNTRAINED = "untrained"


@dataclass(frozen=True)
class WeightsSpec:
    """One of three: neither field set (untrained), `epochs` of training, or a `checkpoint` file.

    With `dataset` the network is trained on that dataset's training split, opened with `parameters`, instead
    of the attacked dataset's own. `label` is what tables show.
    """

    label: str
    epochs: int | None = None
    checkpoint: Path | None = None
    dataset: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def parse_weights(spec: str | int | Mapping[str, Any] | os.PathLike[str]) -> WeightsSpec:
    """What `spec` asks for: "untrained", a number of epochs, a checkpoint's path, or
    {epochs = 20, dataset = "cifar10-jpeg", ...the parameters of that dataset}.

    Raises `ConfigurationError` for anything else; files are not looked at.
    """
    if isinstance(spec, Mapping):
        return _parse_table(dict(spec))
    if isinstance(spec, int):
        return _of_epochs(spec)
    if spec == UNTRAINED:
        return WeightsSpec(UNTRAINED)
    if isinstance(spec, str | os.PathLike) and os.fspath(spec):
        path = Path(spec).expanduser()
        return WeightsSpec(path.name, checkpoint=path)
    raise _refusal(spec)


def _parse_table(table: dict[str, Any]) -> WeightsSpec:
    if "epochs" not in table:
        near = f" ({suggest(next(iter(table)), ['epochs', 'dataset'])})" if table else ""
        raise ConfigurationError(f"weights {table!r}: epochs is missing{near}; write {{ epochs = 20, ... }}")
    epochs, name = table.pop("epochs"), table.pop("dataset", None)
    plain = _of_epochs(epochs)
    if name is None:
        if table:
            key = next(iter(table))
            raise ConfigurationError(f"weights: unknown key {key!r}; {suggest(key, ['epochs', 'dataset'])}")
        return plain
    if not isinstance(name, str):
        raise ConfigurationError(f"weights: dataset must be the name of a dataset, got {name!r}")
    check_dataset(name, table)
    return WeightsSpec(f"{plain.label} on {name}", epochs=epochs, dataset=name, parameters=table)


def _of_epochs(epochs: object) -> WeightsSpec:
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise _refusal(epochs)
    return WeightsSpec(f"{epochs} epoch{'s' if epochs > 1 else ''}", epochs=epochs)


def _refusal(value: object) -> ConfigurationError:
    return ConfigurationError(
        f'weights must be "untrained", a whole number of training epochs from 1 on, the path of a checkpoint, or '
        f'{{ epochs = 20, dataset = "cifar10-jpeg" }}; got {value!r}'
    )
