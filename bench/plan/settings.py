"""The settings of a grid: each model with its weights, in the one architecture that all of its defenses can share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.errors import ConfigurationError
from bench.grid.cells import Setting
from bench.grid.config import Config
from bench.plan.methods import PlannedDefense
from bench.registry.sources import named
from bench.registry.specs import ChainSpec, chain_label
from bench.trial.clients import Clients
from defenses.batch_norm import batch_norms
from defenses.task import Classifier, Task


@dataclass(frozen=True)
class PlannedSetting:
    """A setting that the grid's methods can run in."""

    setting: Setting
    """The setting with the defenses that changed its architecture."""
    task: Task
    """Its undefended task."""
    checkpoint: str | None
    """SHA-256 of the checkpoint that its weights come from; None without one."""


def planned_settings(config: Config, defenses: list[PlannedDefense], clients: Clients) -> Iterator[PlannedSetting]:
    """Each setting once, one after the other: the networks of all settings together may not fit into memory.

    Raises ConfigurationError for images that the dataset lacks, for a network that a defense cannot work with and for
    weights that cannot be had.
    """
    grid = config.grid
    granted = any(threat.public for threat in config.threats)
    public, attacked = (grid.public, grid.images) if granted else (None, 0)
    known: set[Setting] = set()
    for model, weights, mode in itertools.product(grid.models, grid.weights, grid.client.mode):
        bare = Setting(grid.dataset, model, weights, grid.client.schedule, (), mode, public, attacked)
        _check_images(grid.images, defenses, clients, bare)
        setting, architecture = _shared_architecture(bare, defenses, clients)
        if setting in known:
            continue
        known.add(setting)
        checkpoint = clients.check_weights(setting, architecture)
        dataset = clients.dataset(setting)
        yield PlannedSetting(setting, Task(architecture, dataset.classes, dataset.input_shape), checkpoint)


def _check_images(images: int, defenses: list[PlannedDefense], clients: Clients, setting: Setting) -> None:
    available = len(clients.dataset(setting))
    if images > available:
        raise ConfigurationError(
            f"grid.images = {images}, but {setting.dataset.name} has {available} images to attack; ask for fewer"
        )
    for size in (defense.schedule.images for defense in defenses):
        if images % size:
            raise ConfigurationError(
                f"grid.images = {images} does not divide into clients of {size} images; "
                f"the next number that does is {-(-images // size) * size}"
            )


def _shared_architecture(
    setting: Setting, defenses: list[PlannedDefense], clients: Clients
) -> tuple[Setting, Classifier]:
    """The setting with every defense that changes the architecture, and the architecture after all of them."""
    model = clients.architecture(setting, seed=0)
    preparers: list[ChainSpec] = []
    for defense in defenses:
        prepared = _prepared(model, defense, setting)
        if repr(prepared) != repr(model):
            preparers.append(defense.parts)
            model = prepared
    # Without batch norm both modes are one setting: the client does the same.
    return replace(setting, preparers=tuple(preparers), mode=setting.mode if batch_norms(model) else "eval"), model


def _prepared(model: Classifier, defense: PlannedDefense, setting: Setting) -> Classifier:
    label = chain_label(defense.parts)
    try:
        with named(f"defense {label}", passes=ValueError):
            prepared = defense.chain.prepare(model)
    except ConfigurationError:
        raise
    except ValueError as error:
        hint = 'leave the defense out, or choose a model without such layers, e.g. with norm = "group"'
        raise ConfigurationError(f"{setting.model.label} under {label}: {error}; {hint}") from error
    if not isinstance(prepared, Classifier):
        got = type(prepared).__name__
        raise ConfigurationError(f"defense {label}: prepare returned {got}; return the model")
    return prepared
