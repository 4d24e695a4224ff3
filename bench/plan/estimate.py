"""The size and cost of a plan, from first iterations of the real attacks and first rounds of the real trainings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from timeit import timeit
from typing import Any

import torch

from attacks.attack import Attack
from attacks.engine.execution import Execution, executing, listening
from attacks.observation import Observation, joined
from bench.devices import budget, choose_device, clients_at_once, default_threads, trials_that_fit
from bench.grid.cells import HELD_OUT_CLIENTS, Block
from bench.grid.jobs import Job
from bench.grid.sections import Utility, Weights
from bench.plan.groups import Group, Groups
from bench.plan.plan import Plan
from bench.price.certificate_trials import Pool, measure
from bench.price.federated import first_clients
from bench.price.jobs import UNUSED_DELTA
from bench.price.utility import rounds_of
from bench.provenance import device_name
from bench.registry.registry import Registry
from bench.registry.specs import chain_label
from bench.store.store import FAILURES, Store
from bench.trial.clients import Clients, attack_seeds
from defenses.batch_norm import in_mode
from defenses.task import Params, Task


def describe_jobs(plan: Plan, clients: Clients, store: Store) -> tuple[list[str], float]:
    """A line for each kind of job that is left, with what it holds and takes, and the seconds of all."""
    left = [job for job in plan.jobs if store.status_of(job.id, plan.fingerprints[job.id]) == "pending"]
    measured: dict[object, float] = {}
    lines: list[str] = []
    total = 0.0
    for kind in dict.fromkeys(job.kind for job in left):
        own = [job for job in left if job.kind == kind]
        unknown: dict[str, None] = {}
        seconds = 0.0
        for job in own:
            key = kind, job.setting.model, job.setting.prepared_by, job.setting.mode, job.defense
            try:
                measured[key] = measured[key] if key in measured else _seconds(job, clients)
                seconds += measured[key]
            except Exception as error:  # Whatever a plugin raises here will be a job's status in the run.
                unknown[f"  not estimated: {job.title}: {type(error).__name__}: {error}"] = None
        labels = dict.fromkeys(chain_label(job.defense) for job in own)
        what = f"{len(own)} {kind}{'s' * (len(own) != 1)} of {len(labels)} defense{'s' * (len(labels) != 1)}"
        lines += [f"  job       {what}, about {seconds / 60:.1f} minutes", *unknown]
        total += seconds
    return lines, total


def _seconds(job: Job, clients: Clients) -> float:
    dataset, chain = clients.dataset(job.setting), clients.chain(job.defense)
    model = in_mode(clients.architecture(job.setting, job.seed), job.setting.mode)
    task = Task(model, dataset.classes, dataset.input_shape, job.schedule)
    params: Params = {name: p.detach() for name, p in model.named_parameters()}
    if isinstance(job.section, Utility):
        rounds = rounds_of(job.section, dataset, job.schedule)
        data = dataset.training()
        assert data is not None, "the plan has checked this"
        some = min(rounds.clients, clients_at_once(task, params))
        times = []
        for _ in range(2):  # The first one pays what is paid once.
            started = time.perf_counter()
            batches, rngs = first_clients(data, rounds, 0, some)
            chain.updates(task, params, batches, rngs)
            times.append(time.perf_counter() - started)
        return min(times) * rounds.rounds * rounds.clients / some
    pool = Pool.of(dataset)
    guarantee = chain.privacy(job.setting.client, 1, UNUSED_DELTA)
    few = max(1, job.section.trials // 20)
    started = time.perf_counter()
    measure(chain, task, params, pool, guarantee, candidates=job.section.candidates, trials=few)
    return (time.perf_counter() - started) * job.section.trials / few


ENOUGH = 0.5
"""Seconds of an attack that are measured, and at least two iterations."""


def describe_plan(plan: Plan, registry: Registry, clients: Clients, store: Store, device: str | None = None) -> str:
    """The settings, attacks and defenses of a plan, what is done, what is skipped and why, and the hours left.

    Raises ConfigurationError for a device that is not there.
    """
    engine = plan.config.engine
    chosen = choose_device(device or engine.device, engine.execution, engine.precision)
    threads = plan.config.engine.threads or default_threads()
    torch.set_num_threads(threads)
    states = {block: _state(block, plan, store) for block in plan.blocks()}
    cost = Cost(registry, clients, engine.chunk, chosen)
    pending = [block for block, state in states.items() if state == "pending"]
    for group in Groups(store, registry, clients, plan.fingerprints, {}).of(pending, plan.blocks(), ()):
        cost.add(group)
    lines = [f"{plan.config.name}: {len(plan.cells)} cells over {plan.images} images, {len(states)} blocks"]
    settings = dict.fromkeys(cell.setting for cell in plan.cells)
    lines += [f"  setting   {s.dataset.name}, {s.model_label}, {s.weights.label}" for s in settings]
    for label, control in {c.attack.label: c.control for c in plan.cells}.items():
        seconds = cost.attacks.get(label, 0.0)
        lines.append(f"  {'control' if control else 'attack ':<9} {label}{f': {readable(seconds)}' if seconds else ''}")
    lines += [f"  defense   {label}" for label in dict.fromkeys(chain_label(c.defense) for c in plan.cells)]
    lines += [f"  note      {note}" for note in plan.notes]
    skipped = dict.fromkeys((c.attack.label, c.setting.model_label, c.skip) for c in plan.cells if c.skip)
    lines += [f"  skipped   {attack} on {model}: {why}" for attack, model, why in skipped]
    for status, count in sorted(Counter(states.values()).items()):
        again = f"; --retry {status} runs {'them' if count > 1 else 'it'} again"
        lines.append(f"  {status:<9} {_blocks(count)}{again if status in (*FAILURES, 'stale') else ''}")
    jobs, of_jobs = describe_jobs(plan, clients, store)
    lines += jobs
    if not (cost.blocks or jobs):
        return "\n".join([*lines, "nothing left to run"])
    computer = device_name(chosen) if chosen.type == "cuda" else f"the CPU with {threads} thread{'s' * (threads > 1)}"
    if cost.training:
        lines.append(f"  training  {readable(cost.training)}, once")
    seconds, also = cost.seconds + of_jobs, " and the jobs" if jobs else ""
    lines.append(
        f"{readable(seconds)} ({seconds / 3600:.2g} hours) for {_blocks(cost.blocks)}{also} on {computer}, "
        "from the first iterations of each attack"
    )
    return "\n".join([*lines, *(f"  not estimated: {reason}" for reason in cost.unknown)])


@dataclass
class Cost:
    """Adds up the seconds of blocks; every attack, and every defense's client, is measured once."""

    registry: Registry
    """The methods by name."""
    clients: Clients
    """The clients' datasets, models and updates."""
    chunk: int | None
    """Trials in one tensor program; None for as many as memory holds."""
    device: torch.device
    """The device on which attacks are measured."""
    blocks: int = 0
    """Blocks to run."""
    training: float = 0.0
    """Seconds in which weights are trained, each once."""
    shares: float = 0.0
    """Seconds in which clients compute their updates."""
    attacks: dict[str, float] = field(default_factory=dict)
    """An attack's label -> seconds of it."""
    unknown: dict[str, None] = field(default_factory=dict)
    """Reasons for which blocks could not be estimated, in order."""
    _seen: set[Any] = field(default_factory=set)
    _measured: dict[Any, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.training + self.shares + sum(self.attacks.values())

    def add(self, group: Group) -> None:
        """One more group of blocks to run."""
        self.blocks += len(group.blocks)
        lead, cell = group.blocks[0], group.blocks[0].cell
        if cell.borrows is not None:
            return
        # Trained weights cost no more to attack than untrained ones, which are there at once; nor do several releases.
        bare = [_bare(block) for block in group.blocks]
        try:
            for block, own in zip(group.blocks, bare, strict=True):
                if self._is_new("weights", block.cell.setting, block.cell.seed):
                    self.training += self.clients.training_seconds(block.cell.setting, block.cell.seed)
                images = block.stop - block.start
                key = (own.cell.setting, own.cell.defense)
                share = self._once(
                    key, lambda own=own, images=images: timeit(lambda: self.clients.release(own), number=1) / images
                )
                clients, releases = (1 if cell.repeats is None else HELD_OUT_CLIENTS), cell.threat.releases
                if self._is_new("client", own.client_key, releases, clients):
                    self.shares += share * images * releases * clients
            first, blocks, times = bare[0], len(bare), 1
            if cell.repeats is not None:
                first = _bare(replace(lead, cell=cell.repeats))
                # One call on all held-out clients costs more lanes where the attack has lanes, else as many calls.
                joint = self.registry.cls("attack", cell.attacked_by.name).joint
                blocks, times = (HELD_OUT_CLIENTS, 1) if joint else (1, HELD_OUT_CLIENTS)
            defense, images = (cell.defense if cell.threat.defense_known else None), lead.stop - lead.start
            key = (first.cell.setting, cell.attacked_by, cell.threat, cell.schedule, defense, blocks, images)
            seconds = times * self._once(key, lambda: self._attack(first, blocks))
            self.attacks[cell.attack.label] = self.attacks.get(cell.attack.label, 0.0) + seconds
        except Exception as error:  # Whatever a plugin raises here will be a cell's status in the run.
            self.unknown[f"{cell.title}: {type(error).__name__}: {error}"] = None

    def _attack(self, block: Block, blocks: int) -> float:
        """Seconds of a group of so many blocks like this one."""
        cell = block.cell
        attack: Attack = self.registry.build("attack", cell.attack)
        release = self.clients.release(block)
        seen = self.clients.observed(cell, attack, [release]).to(self.device)
        seeds = attack_seeds(block) * blocks
        fits = self.chunk or len(seeds)
        if attack.joint:
            seen = joined([seen] * blocks)
        else:
            fits = min(fits, trials_that_fit(release.task, release.params, attack.restarts, self.device))
        trials = min(fits, len(seeds))
        with executing(Execution(mode="eager", memory=budget(self.device))):
            return estimate_seconds(attack, seen[:trials], seeds[:trials]) * len(seeds) / trials

    def _once(self, key: Any, measure: Callable[[], float]) -> float:
        if key not in self._measured:
            self._measured[key] = measure()
        return self._measured[key]

    def _is_new(self, *key: Any) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


class _Enough(BaseException):
    """No plugin may catch it."""


def estimate_seconds(attack: Attack, seen: Observation, seeds: list[int]) -> float:
    """Seconds that `reconstruct` would take; an attack that reports its iterations is stopped after a few of them."""
    started = time.perf_counter()
    marks: list[tuple[int, float]] = []
    left = 0

    def listen(done: int, total: int) -> None:
        nonlocal left
        if seen.device.type == "cuda":
            torch.cuda.synchronize(seen.device)
        marks.append((done, time.perf_counter() - started))
        left = total - done
        if len(marks) > 2 and marks[-1][1] - marks[0][1] > ENOUGH:
            raise _Enough

    try:
        with listening(listen):
            attack.reconstruct(seen, seeds)
    except _Enough:
        # The first iteration pays what is paid once.
        (first, early), (last, late) = marks[0], marks[-1]
        return late + left * (late - early) / max(1, last - first)
    return time.perf_counter() - started


def readable(seconds: float) -> str:
    """In the unit that a person would use."""
    if seconds < 90:
        return "less than a second" if seconds < 1 else f"about {seconds:.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def _bare(block: Block) -> Block:
    """The block of untrained weights whose clients are seen once."""
    cell = block.cell
    setting, threat = replace(cell.setting, weights=Weights()), replace(cell.threat, releases=1)
    return replace(block, cell=replace(cell, setting=setting, threat=threat))


def _state(block: Block, plan: Plan, store: Store) -> str:
    if block.cell.skip is not None:
        return "skipped"
    return store.status_of(block.id, plan.fingerprints[block.id])


def _blocks(count: int) -> str:
    return f"{count} block{'s' * (count != 1)}"
