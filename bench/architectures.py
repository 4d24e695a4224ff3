"""The architecture that every defense of a grid can work with: a comparison attacks and trains one network."""

from __future__ import annotations

from dataclasses import replace

from bench.cells import Setting
from bench.clients import Clients
from bench.errors import ConfigurationError
from bench.plugins import named
from bench.specs import Chain, chain_label
from defenses.batch_norm import batch_norms
from defenses.chain import Chain as DefenseChain
from defenses.client import Classifier


def prepared(
    setting: Setting, chains: list[tuple[Chain, DefenseChain]], clients: Clients
) -> tuple[Setting, Classifier]:
    """The setting with the architecture that every defense of the grid can work with."""
    model = clients.architecture(setting, seed=0)
    preparers: list[Chain] = []
    for parts, chain in chains:
        try:
            with named(f"defense {chain_label(parts)}", passes=ValueError):
                prepared = chain.prepare(model)
        except ConfigurationError:
            raise
        except ValueError as error:
            hint = 'leave the defense out, or choose a model without such layers, e.g. with norm = "group"'
            raise ConfigurationError(f"{setting.model.label} under {chain_label(parts)}: {error}; {hint}") from error
        if not isinstance(prepared, Classifier):
            got = type(prepared).__name__
            raise ConfigurationError(f"defense {chain_label(parts)}: prepare returned {got}; return the model")
        if repr(prepared) != repr(model):
            preparers.append(parts)
            model = prepared
    return replace(setting, preparers=tuple(preparers), mode=setting.mode if batch_norms(model) else "eval"), model
