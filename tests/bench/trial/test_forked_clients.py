"""A plugin's clients in forked processes: it can neither tell them apart nor leave anything behind."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import Generator, nn

from attacks.observation import PublicImages
from bench.registry.registry import Registry
from bench.seeds import stream
from bench.trial import forked_clients
from bench.trial.forked_clients import CLIENTS_OF_A_FORK, ForkedClients, PristineProcess
from defenses.chain import Chain, DefenseFault
from defenses.task import Batch, Classifier, Normalise, Task

PLUGIN = '''
import os, time
from dataclasses import dataclass
import torch
from leakboard import Defense

CALLS = 0
IMPORTED_BY = os.getpid()

def filled(update, value):
    return {name: torch.full_like(u, float(value)) for name, u in update.items()}

class Doubling(torch.nn.Module):
    def forward(self, values):
        return 2 * values

@dataclass(frozen=True)
class Noisy(Defense):
    std: float = 0.1
    def transform(self, task, update, rng):
        global CALLS
        CALLS += 1
        return {n: u + self.std * (torch.randn(u.shape, generator=rng) + torch.rand(())) for n, u in update.items()}

@dataclass(frozen=True)
class Counting(Defense):
    def transform(self, task, update, rng):
        global CALLS
        CALLS += 1
        return filled(update, CALLS)

@dataclass(frozen=True)
class Looking(Defense):
    """Everything by which a call could be told from another."""
    def share(self, task, params, batch, rng):
        seen = batch.images
        told = [os.getpid() == IMPORTED_BY, os.getppid() == IMPORTED_BY, rng.initial_seed() > 2**48,
                seen.dtype == torch.float32, seen.is_contiguous(), seen.storage_offset() == 0,
                seen.untyped_storage().nbytes() == seen.nbytes, batch.labels.dtype == torch.int64,
                bool(((seen * 255).round() / 255 == seen).all())]
        return filled(params, sum(2**i for i, yes in enumerate(told) if yes))

@dataclass(frozen=True)
class Faulty(Defense):
    how: str
    def transform(self, task, update, rng):
        if self.how == "leave":
            raise SystemExit("bye")
        if self.how == "raise":
            raise ValueError("no such image")
        if self.how == "hang":
            time.sleep(301)
        if self.how == "die":
            os._exit(3)
        while self.how == "swallow":
            try:
                time.sleep(300)
            except Exception:
                pass
        if self.how == "shape":
            return {name: u.flatten()[:1] for name, u in update.items()}
        return filled(update, "nan")
'''


def line_of(text):
    """The number of the only line of the plugin that holds the text."""
    [number] = [i for i, line in enumerate(PLUGIN.splitlines(), 1) if text in line]
    return number


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The registry of the plugin file, and the process that has imported it: it takes two seconds."""
    path = tmp_path_factory.mktemp("plugins") / "mine.py"
    path.write_text(PLUGIN)
    registry = Registry([path])
    process = PristineProcess(registry.plugins)
    yield registry, process
    process.close()


@pytest.fixture
def clients(plugins):
    """The clients of a defense, as a grid calls it."""
    registry, process = plugins
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    model = Classifier(Normalise((0.5,), (0.25,)), network).eval()
    task = Task(model, 3, (1, 4, 4))
    params = {name: p.detach() for name, p in model.named_parameters()}
    public = PublicImages(pixels(99, 60)[:, 0], torch.arange(60) % 3, "")
    return lambda call: ForkedClients(process, registry.expand("defense", [call])[0], task, params, public)


def pixels(seed, count):
    """Images of clients, uint8 (count 1 1 4 4)."""
    return torch.randint(256, (count, 1, 1, 4, 4), dtype=torch.uint8, generator=Generator().manual_seed(seed))


def first_entries(clients, seed, count, seeds=None):
    """The first entry of the updates of so many clients."""
    labels = torch.zeros(count, 1, dtype=torch.long)
    sent = clients.updates(pixels(seed, count), labels, seeds or [stream("x", i) for i in range(count)])
    return sent["network.1.bias"][:, 0]


def test_a_forked_client_sends_to_the_last_bit_what_it_sends_in_this_process(plugins, clients):
    registry, _ = plugins
    forked = clients("gradient_pruning(ratio=0.5) | noisy(std=0.3)")
    images, labels = pixels(1, 3), torch.tensor([[0], [2], [1]])
    sent = forked.updates(images, labels, [5, 6, 2**63 - 1])
    chain = Chain(tuple(registry.build("defense", part) for part in forked.defense))
    for i, seed in enumerate([5, 6, 2**63 - 1]):
        batch = Batch(images[i].float() / 255, labels[i])
        alone = chain.update(forked.task, forked.params, batch, Generator().manual_seed(seed))
        assert all(torch.equal(alone[name], u[i]) for name, u in sent.items())


def test_what_a_plugin_counts_says_nothing_of_whose_client_it_is(plugins, clients):
    """Private clients, in company, stand at every place of their process, and so do those of a full batch."""
    registry, _ = plugins
    counting = clients("counting")
    here = Chain(tuple(registry.build("defense", part) for part in counting.defense))
    batch = Batch(torch.rand(1, 1, 4, 4), torch.tensor([0]))
    for _ in range(3):  # A count in this process reaches no client.
        here.update(counting.task, counting.params, batch, Generator())
    full = first_entries(counting, 1, CLIENTS_OF_A_FORK + 1)
    assert sorted(full[:-1].tolist()) == list(range(1, CLIENTS_OF_A_FORK + 1))
    assert full[:-1].tolist() != sorted(full[:-1].tolist())
    places = torch.cat([first_entries(counting, seed, 16) for seed in range(6)])
    marked = [(places <= 10).sum().item(), (places > 40).sum().item()]
    assert all(10 <= count <= 29 for count in marked), marked  # of 96, a fifth each: 19 with a deviation of 4
    assert float(places.max()) <= CLIENTS_OF_A_FORK


def test_process_seeds_and_images_look_alike_for_every_client(clients):
    looking = clients("looking")
    alone = first_entries(looking, 1, 2)
    together = first_entries(looking, 2, CLIENTS_OF_A_FORK)
    # Another process than the one that imported the plugin, whose child it is; all the rest as in this process.
    assert set(alone.tolist()) == set(together.tolist()) == {float(2**9 - 2)}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise", rf"ValueError: no such image \(\S+mine\.py:{line_of('no such image')}\)"),
        ("leave", rf"SystemExit: bye \(\S+mine\.py:{line_of('bye')}\)"),
        ("hang", rf"TimeoutError: one client took over 0\.2 s \(\S+mine\.py:{line_of('time.sleep(301)')}\)"),
        ("swallow", r"it took over 0\.3 s for one client, and did not hear the limit"),
        ("die", "its process ended with code 3"),
        ("shape", rf"Faulty returned \(1,\) .* for 'network\.1\.weight'.* \(\S+mine\.py:{line_of('how: str') + 1}\)"),
        ("nan", rf"Faulty returned infinite or undefined values .*\(\S+mine\.py:{line_of('how: str') + 1}\)"),
    ],
)
def test_a_plugin_that_fails_or_takes_too_long_is_said_with_its_line_and_harms_no_other(
    clients, monkeypatch, how, told
):
    monkeypatch.setattr(forked_clients, "LEAST_SECONDS", 0.2)
    monkeypatch.setattr(forked_clients, "MOST_TIMES", 0)
    monkeypatch.setattr(forked_clients, "GRACE", 0.1)
    with pytest.raises(DefenseFault, match=rf"^faulty\(how='{how}'\): .*{told}"):
        first_entries(clients(f"faulty(how='{how}')"), 1, 2)
    monkeypatch.setattr(forked_clients, "LEAST_SECONDS", 30)
    assert first_entries(clients("counting"), 1, 2).isfinite().all()


def test_a_layer_of_the_plugin_s_own_reaches_its_clients(clients):
    forked = clients("noisy(std=0.0)")
    before = first_entries(forked, 1, 1)
    forked = clients("noisy(std=0.0)")
    forked.task.model.network.append(sys.modules["leakboard_plugin_mine"].Doubling())
    assert not torch.equal(first_entries(forked, 1, 1), before)


def test_a_network_that_cannot_be_sent_is_said(clients):
    forked = clients("counting")
    forked.task.model.network.append(type("Local", (nn.Identity,), {})())
    with pytest.raises(DefenseFault, match=r"network cannot be sent to the processes in which plugins run: .*Local"):
        first_entries(forked, 1, 1)


def test_no_process_is_left_when_the_clients_are_done(plugins, clients):
    _, process = plugins
    first_entries(clients("counting"), 1, 2)
    [pid] = forked_by(os.getpid())
    assert forked_by(pid) == []  # Not even a zombie.
    process.close()
    assert forked_by(os.getpid()) == []
    assert state_of(pid) == ""


def test_the_processes_of_a_plugin_end_with_the_one_that_asked_for_them(clients):
    forked = clients("faulty(how='hang')")
    forked.process.close()
    parent = os.fork()
    if parent == 0:
        try:
            first_entries(forked, 1, 2)
        finally:
            os._exit(1)
    pids, end = [], time.monotonic() + 60
    while len(pids) < 2:  # The pristine process and the client that hangs.
        assert time.monotonic() < end
        time.sleep(0.05)
        pids = [pid for child in forked_by(parent) for pid in [child, *forked_by(child)]]
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while any(state_of(pid)[:1] not in ("", "Z") for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def forked_by(pid):
    """The processes of plugins, zombies among them, that a process has started and not waited for."""
    listed = ps("-ww", "-o", "pid=,args=", "--ppid", str(pid)).splitlines()
    return [int(line.split()[0]) for line in listed if "forked_clients" in line or "defunct" in line]


def state_of(pid):
    """The state as `ps` says it: Z for a zombie, empty for none."""
    return ps("-o", "stat=", "-p", str(pid)).strip()


def ps(*words):
    return subprocess.run(["ps", *words], capture_output=True, text=True, check=False).stdout
