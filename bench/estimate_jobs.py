"""What the trainings and certificates of a plan would cost, from a round of each."""

from __future__ import annotations

import time

from bench.clients import Clients
from bench.federated import clients_at_once, first_clients
from bench.identification_trials import Pool, measure
from bench.job_settings import Utility
from bench.jobs import UNUSED_DELTA, Job
from bench.plan import Plan
from bench.specs import chain_label
from bench.store import Store
from bench.utility import rounds_of
from defenses.batch_norm import in_mode
from defenses.client import Params, Task


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
    if isinstance(job.asked, Utility):
        rounds = rounds_of(job.asked, dataset, job.schedule)
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
    few = max(1, job.asked.trials // 20)
    started = time.perf_counter()
    measure(chain, task, params, pool, guarantee, candidates=job.asked.candidates, trials=few)
    return (time.perf_counter() - started) * job.asked.trials / few
