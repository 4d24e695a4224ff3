"""The price of every defense and what its noise proves, from the trainings and certificates of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import ceil

import numpy as np
import pandas as pd

from bench.price.certificates import is_broken
from defenses.accounting import gaussian_epsilon
from leaderboards.ranking.accuracy import Estimate, LostAccuracy, Trained, Training, trainings, unknown_price
from leaderboards.statistics.summary import Row, records

Certified = tuple[str, str, str, str]
"""Dataset, model, weights and defense of the attack that tests a certificate."""


@dataclass(frozen=True)
class CertificateResult:
    """The test of a guarantee by an adversary who picks the private image among candidates."""

    bound: float = np.nan
    """Share of trials that the best possible attack can win."""
    measured: float = np.nan
    """Share of trials that the attack won."""
    trials: float = np.nan
    """Number of trials."""
    candidates: float = np.nan
    """Number of images of which the adversary picks one."""
    broken: bool = False
    """True if the attack won more than the bound and luck explain: noise or clipping are not what they claim."""
    reason: str = ""
    """The reason for which it was not measured; "" where it was."""
    defense_name: str = ""


def certificates(jobs: pd.DataFrame) -> dict[Certified, CertificateResult]:
    """The certificate jobs of a run, by what was attacked; columns as in `bench.store.store`.

    All of a run are tested together: a run of honest ones calls none broken, but once in a thousand.
    """
    rows = pd.DataFrame(jobs.loc[jobs["kind"] == "certificate"])
    named = rows.groupby(["dataset", "model", "weights", "defense"], sort=False)
    return {tuple(map(str, key)): _certificate(records(own), len(rows)) for key, own in named}  # type: ignore[misc]


def _certificate(rows: list[Row], levels: int) -> CertificateResult:
    """One certificate of several jobs: each is tested, their trials are added up."""
    done = [row for row in rows if row["status"] == "ok"]
    broken = any(is_broken(int(r["successes"]), int(r["trials"]), float(r["bound"]), levels) for r in done)
    failed = [row for row in rows if row["status"] != "ok"]
    why = [f"seed {int(row['seed'])} is {row['status']}" for row in failed]
    why += [str(row["reason"]) for row in failed if not pd.isna(row["reason"]) and row["reason"]]
    stated = {name: {float(row[name]) for row in done} for name in ("bound", "candidates")}
    why += [f"seeds disagree on the {name}" for name, values in stated.items() if len(values) > 1]
    if why:
        return CertificateResult(
            broken=broken, reason="; ".join(dict.fromkeys(why)), defense_name=rows[0]["defense_name"]
        )
    trials = sum(int(row["trials"]) for row in rows)
    measured = sum(int(row["successes"]) for row in rows) / trials
    (bound,), (candidates,) = stated.values()
    return CertificateResult(bound, measured, trials, candidates, broken, defense_name=rows[0]["defense_name"])


BROKEN = "broken certificate"
CLOSED_FORM = "closed form"
"""The accountant of a proof that is of Gaussian noise at sampling rate 1 and of nothing else."""
PROVEN = ("epsilon", "epsilon_rdp", "epsilon_prv", "epsilon_central")
PLAIN = (
    *PROVEN, "delta", "guarantee_steps", "noise_multiplier", "test_images", "rounds", "clients", "population",
    "participations", "learning_rate", "least_accuracy", "bytes_sent", "update_ms",
)  # fmt: skip
"""Figures of training that `Price` has under their own name."""


@dataclass(frozen=True)
class Price:
    """The costs of a defense and its proof, as tables export them: accuracies are fractions, losses percentage points.

    A number that is not known is NaN, a text or a claim None. A figure with `low` and `high` has a 95% interval.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_lost: float
    accuracy_lost_low: float
    accuracy_lost_high: float
    images_seen: float
    """Images that a round of training sees, over those of an undefended round."""
    accuracy_at_equal_images: float
    """The accuracy after as many images as undefended training sees; the one above is after as many rounds."""
    accuracy_at_equal_images_low: float
    accuracy_at_equal_images_high: float
    lost_at_equal_images: float
    lost_at_equal_images_low: float
    lost_at_equal_images_high: float
    equal_images_reason: str | None
    """The reason for which there is no accuracy lost at equal images."""
    accuracy_of_chance: float
    epsilon: float
    """Of the whole training, against the server that is attacked; NaN where nothing is proven, or `doubt` is cast on
    the proof."""
    epsilon_rdp: float
    epsilon_prv: float
    epsilon_central: float
    """Against whoever sees the mean of a round's updates alone."""
    attacked_releases: float
    """Releases of a client that the attacks of the question see; NaN where nothing is proven."""
    epsilon_of_attacked_releases: float
    """Of so many releases, and not of the whole training."""
    attacked_releases_reason: str | None
    """The reason for which a proof of the whole training says nothing of so many releases alone."""
    delta: float
    guarantee_steps: float
    noise_multiplier: float
    test_images: float
    rounds: float
    clients: float
    population: float
    participations: float
    learning_rate: float
    least_accuracy: float
    """The accuracy that undefended training has to reach for anybody to be ranked."""
    bytes_sent: float
    update_ms: float
    training_seconds: float
    certificate: float
    """The share of trials that the best possible attack can win."""
    certificate_measured: float
    certificate_trials: float
    certificate_candidates: float
    accuracy_seeds: int
    accuracy_reason: str | None
    """The reason for which there is no accuracy."""
    accuracy_lost_reason: str | None
    at_chance: bool | None
    """True if the accuracy may be that of guessing."""
    accountant: str | None
    unit: str | None
    """The unit of privacy that epsilon is about, such as an image."""
    relation: str | None
    """The relation of datasets that epsilon calls neighbours."""
    no_epsilon: str | None
    conflicts: str | None
    """Facts that the seeds should share and do not."""
    optimizer: str | None
    certificate_broken: bool | None
    certificate_reason: str | None
    """The reason for which the certificate was not measured."""
    was_trained: bool
    """True if anybody tried to measure the accuracy."""
    doubt: str | None
    """The reason for which its proof, if it has one, is not believed."""

    @property
    def is_heuristic(self) -> bool:
        """True if training says that nothing is proven, which is no failure."""
        return self.no_epsilon is not None and self.doubt is None

    def loss(self, equal_images: bool) -> Estimate:
        """The accuracy lost after equally many images, or else after equally many rounds, in percentage points."""
        rounds = Estimate(self.accuracy_lost, self.accuracy_lost_low, self.accuracy_lost_high, self.accuracy_seeds)
        images = Estimate(
            self.lost_at_equal_images,
            self.lost_at_equal_images_low,
            self.lost_at_equal_images_high,
            self.accuracy_seeds,
        )
        return images if equal_images else rounds

    def loss_reason(self, equal_images: bool) -> str | None:
        """The reason for which there is no such loss."""
        return self.equal_images_reason if equal_images else self.accuracy_lost_reason

    def reached(self, equal_images: bool) -> float:
        """The accuracy after equally many images, or else after equally many rounds."""
        return self.accuracy_at_equal_images if equal_images else self.accuracy

    def stated_epsilon(self, of_attacked_releases: bool) -> float:
        """The epsilon of the releases that are attacked, or else of the whole training."""
        return self.epsilon_of_attacked_releases if of_attacked_releases else self.epsilon


PRICE_COLUMNS = tuple(own.name for own in fields(Price) if own.name not in ("was_trained", "doubt"))
"""The fields of a price that tables export, in order."""
NOT_MEASURED = "accuracy not measured"
_UNKNOWN = Training(unknown_price(NOT_MEASURED), unknown_price(NOT_MEASURED), np.nan, {}, "")


@dataclass(frozen=True)
class RunCosts:
    """The trainings and certificates of a run; both empty where it has none."""

    trained: Mapping[Trained, Training] = field(default_factory=dict)
    certified: Mapping[Certified, CertificateResult] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    """Label of a defense -> the entry of a board that it is of; empty of a run."""

    def of(self, row: Row) -> Price:
        """The price of the defense of a row with dataset, model, weights and defense."""
        key = row["dataset"], row["model"], row["defense"]
        training, facts = self._training(row), self._training(row).facts
        rounds, images = training.at_equal_rounds, training.at_equal_images
        certificate = self.certified.get((row["dataset"], row["model"], row["weights"], row["defense"]))
        plain: Row = {name: facts.get(name, np.nan) for name in PLAIN}
        # An infinite epsilon proves nothing.
        doubt = BROKEN if self.broken(row) else self.untested(row)
        attacked, epsilon, unproven = _of_releases(row.get("releases", 1), {} if doubt else facts)
        plain |= {name: np.nan for name in PROVEN if not np.isfinite(plain[name]) or doubt}
        return Price(
            **plain,
            accuracy=rounds.accuracy.mean,
            accuracy_low=rounds.accuracy.low,
            accuracy_high=rounds.accuracy.high,
            accuracy_lost=rounds.lost.mean,
            accuracy_lost_low=rounds.lost.low,
            accuracy_lost_high=rounds.lost.high,
            images_seen=training.images_seen,
            accuracy_at_equal_images=images.accuracy.mean,
            accuracy_at_equal_images_low=images.accuracy.low,
            accuracy_at_equal_images_high=images.accuracy.high,
            lost_at_equal_images=images.lost.mean,
            lost_at_equal_images_low=images.lost.low,
            lost_at_equal_images_high=images.lost.high,
            equal_images_reason=images.lost_reason or None,
            attacked_releases=attacked,
            epsilon_of_attacked_releases=epsilon,
            attacked_releases_reason=unproven or None,
            accuracy_of_chance=facts.get("chance", np.nan),
            training_seconds=facts.get("seconds", np.nan),
            certificate=certificate.bound if certificate else np.nan,
            certificate_measured=certificate.measured if certificate else np.nan,
            certificate_trials=certificate.trials if certificate else np.nan,
            certificate_candidates=certificate.candidates if certificate else np.nan,
            accuracy_seeds=rounds.accuracy.n,
            accuracy_reason=rounds.reason or None,
            accuracy_lost_reason=rounds.lost_reason or None,
            at_chance=None if rounds.reason else rounds.at_chance,
            accountant=facts.get("accountant"),
            unit=facts.get("guarantee_unit"),
            relation=facts.get("guarantee_relation"),
            no_epsilon=doubt or facts.get("no_epsilon"),
            conflicts=training.conflicts or None,
            optimizer=facts.get("optimizer"),
            certificate_broken=certificate.broken if certificate else None,
            certificate_reason=certificate.reason or None if certificate else None,
            was_trained=key in self.trained,
            doubt=doubt,
        )

    def lost(self, dataset: str, model: str, defense: str, equal_images: bool) -> LostAccuracy | None:
        """The accuracy lost after equally many images, or else after equally many rounds; None where not known."""
        return self.trained.get((dataset, model, defense), _UNKNOWN).price(equal_images).cost

    def broken(self, row: Row) -> bool:
        """True if a proof of the defense, or of a part of it, is broken, at any strength and on any model.

        The code is the same everywhere in a run, and in an entry of a board: another entry's parts of the same name
        may be other code. A heuristic that shares a part with a broken proof claims nothing itself.
        """
        own_entry = self.entries.get(row["defense"])
        parts = set(row["defense_name"].split(" | "))
        labels = {defense for *_, defense in self.certified}
        proves = row["defense"] in labels or not np.isnan(self._training(row).facts.get("epsilon", np.nan))
        own = {key: one for key, one in self.certified.items() if self.entries.get(key[-1]) == own_entry}
        broken = [one for one in own.values() if one.broken]
        return proves and any(parts & set(own.defense_name.split(" | ")) for own in broken)

    def untested(self, row: Row) -> str | None:
        """The reason for which a test of the proof has no result, under any weights: a failed test must not help."""
        key = row["dataset"], row["model"], row["defense"]
        why = [own.reason for (*setting, _, defense), own in self.certified.items() if (*setting, defense) == key]
        return next((f"certificate not measured: {reason}" for reason in why if reason), None)

    def shortfall(self, dataset: str, model: str, undefended: str = "none") -> str | None:
        """A message if undefended training of this model misses what the run asks: its accuracies show nothing then."""
        asked = {key: training.facts["least_accuracy"] for key, training in self.trained.items()}
        own = [least for key, least in asked.items() if key[:2] == (dataset, model)] or list(asked.values())
        least = float(np.nanmax(own)) if own and not np.isnan(own).all() else np.nan
        if np.isnan(least):
            return None
        reached = self.trained.get((dataset, model, undefended), _UNKNOWN).at_equal_rounds
        if reached.reason:
            return f"undefended training has no accuracy ({reached.reason}), {least:g} is needed"
        if reached.accuracy.mean >= least:
            return None
        return f"undefended training reaches {reached.accuracy.mean:.3f}, {least:g} is needed"

    def alarms(self) -> list[str]:
        """Every broken certificate in words."""
        return [
            f"BROKEN CERTIFICATE: {defense} on {dataset}, {model}, {weights} weights: an attack identified "
            f"{certificate.measured:.3f} of {certificate.trials:.0f} trials, {certificate.bound:.3f} is the most that "
            "its noise allows; noise or clipping are not what they claim"
            for (dataset, model, weights, defense), certificate in self.certified.items()
            if certificate.broken
        ]

    def _training(self, row: Row) -> Training:
        return self.trained.get((row["dataset"], row["model"], row["defense"]), _UNKNOWN)


def _of_releases(releases: int, facts: Row) -> tuple[float, float, str]:
    """The releases that are attacked, the epsilon of so many, and the reason for which there is none.

    Adaptively composed, the releases of one client are as many steps of one Gaussian mechanism each: the closed form of
    the whole training holds of a part of it.
    """
    whole, participations = facts.get("epsilon", np.nan), facts.get("participations", np.nan)
    if not np.isfinite(whole):
        return np.nan, np.nan, ""
    if releases == participations:
        return releases, whole, ""
    noise, steps, delta = (facts.get(name, np.nan) for name in ("noise_multiplier", "guarantee_steps", "delta"))
    if facts.get("accountant") != CLOSED_FORM or not np.isfinite([noise, steps, delta, participations]).all():
        return releases, np.nan, f"its proof, which is not of Gaussian noise alone, is of {participations:g} releases"
    return releases, gaussian_epsilon(noise, ceil(steps * releases / participations), delta), ""


def costs_of(jobs: pd.DataFrame | None) -> RunCosts:
    """The costs in the jobs of `bench.store.store`; without jobs nothing was measured."""
    if jobs is None or jobs.empty:
        return RunCosts()
    entries = dict(zip(jobs["defense"], jobs["entry"], strict=True)) if "entry" in jobs else {}
    return RunCosts(trainings(jobs), certificates(jobs), entries)
