"""Clients whose defense is a plugin, in processes forked from one pristine import of it.

A plugin could count its calls, remember images or look at its process, and treat the clients that its attacker runs
otherwise than the private ones. Here both kinds are computed by one function, fifty in a shuffled order in a process
that was forked for them, with nothing but images, labels and a seed to tell them apart. What a plugin writes to disk is
still there for the next fifty.
"""

from __future__ import annotations

import inspect
import io
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from pickle import PicklingError
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from attacks.observation import PublicImages
from bench.child_process import start_python
from bench.data.dataset import digest_of
from bench.registry.registry import Registry
from bench.registry.specs import ChainSpec, chain_label
from bench.seeds import stream
from defenses.chain import Chain, DefenseFault
from defenses.defense import role_of
from defenses.none import NoDefense
from defenses.task import Batch, Params, Task, Update

CLIENTS_OF_A_FORK = 50
"""Clients of one process: the fork and its first client take 60 ms of LeNet's 230, which fifty of them share."""
LEAST_SECONDS = 30.0
"""Seconds that a client may always take: its defense may import a library first, and Opacus takes 4."""
MOST_TIMES = 100
"""A client may also take so many times what an undefended one takes; `dp_sgd` takes twice as long."""
GRACE = 5.0
"""Seconds after the limit in which a client can still say at which line it was, before its process is killed."""
IMPORT_SECONDS = 120.0
"""Seconds that the import of torch and of the plugins may take."""

ClientInputs = tuple[np.ndarray, list[int], int]
"""A client's uint8 pixels (b c h w), its labels and the seed of its generator."""


class _Silence(DefenseFault):
    """No answer came; what comes later would be taken for that of another client."""


class PristineProcess:
    """A process that has imported the plugins and computed nothing; of it one is forked for every batch of clients.

    It starts with the first batch, and ends with `close`, with this object and with this process.
    """

    def __init__(self, plugins: Sequence[Path]) -> None:
        self._plugins = tuple(plugins)
        self._control: socket.socket | None = None
        self._end: weakref.finalize[Any, Any] | None = None

    @contextmanager
    def fork(self, defense: ChainSpec, work: bytes, seconds: float) -> Iterator[Callable[[ClientInputs], bytes]]:
        """Inside the block, a function that computes the update of one client after the other in one forked process.

        `work` is the task with the weights, as `torch.save` writes them; `seconds` is each client's limit. The function
        raises `DefenseFault` with the plugin's own line.
        """
        line, pid = self._line(), None
        try:
            line.send((defense, seconds))
            line.send_bytes(work)
            pid = _answer(line, IMPORT_SECONDS, "the import of its file")

            def answer(client: ClientInputs) -> bytes:
                line.send(client)
                return _answer(line, seconds + GRACE, "one client, and did not hear the limit")

            yield answer
        except (EOFError, OSError):
            how, pid = self._how_it_ended(), None
            raise DefenseFault(f"{chain_label(defense)}: its process ended{how}") from None
        except BaseException as error:
            if pid is None:  # It may still be importing.
                self.close()
            else:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if isinstance(error, DefenseFault):
                raise DefenseFault(f"{chain_label(defense)}: {error}") from None
            raise
        finally:
            line.close()
            if pid is not None:
                self._how_it_ended()

    def close(self) -> None:
        """End the process with all that it started."""
        if self._end is not None:
            self._end()
        self._control = self._end = None

    def _line(self) -> Connection:
        """A connection of which the pristine process has the other end."""
        if self._control is None:
            self._control, theirs = socket.socketpair()
            with theirs:
                passed = [str(theirs.fileno()), *map(str, self._plugins)]
                process = start_python(
                    "bench.trial.forked_clients:serve_forks",
                    passed,
                    own_group=True,
                    # A fork may neither take over threads nor a GPU; a client computes on the CPU.
                    environment={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                    stdout=2,
                    pass_fds=[theirs.fileno()],
                )
            self._end = weakref.finalize(self, _ended, os.getpid(), process, self._control)
        mine, theirs = socket.socketpair()
        with theirs, suppress(BrokenPipeError):  # Whoever waits for an answer will notice.
            socket.send_fds(self._control, [b"."], [theirs.fileno()])
        return Connection(mine.detach())

    def _how_it_ended(self) -> str:
        """Wait for the end of the latest fork; its code in words, or nothing where the pristine process is gone too."""
        if self._control is not None:
            self._control.settimeout(IMPORT_SECONDS)
            with suppress(OSError):
                if said := self._control.recv(16):
                    return f" with code {int(said)}"
            self.close()
        return ""


@dataclass(frozen=True, eq=False)
class ForkedClients:
    """The clients of one defense, task and set of weights.

    `company` are public images: as many clients of them as make a batch full are computed with the others.
    """

    process: PristineProcess
    defense: ChainSpec
    task: Task
    params: Params
    company: PublicImages

    def updates(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Update:
        """The updates (t, *shape) of t clients of uint8 images (t b c h w) with labels (t b), and of these seeds.

        Raises `DefenseFault` where the defense fails or takes too long.
        """
        updates = {name: p.new_empty(len(seeds), *p.shape) for name, p in self.params.items()}
        for first in range(0, len(seeds), CLIENTS_OF_A_FORK):
            some = slice(first, first + CLIENTS_OF_A_FORK)
            self._fill({name: u[some] for name, u in updates.items()}, images[some], labels[some], seeds[some])
        return updates

    def _fill(self, updates: Update, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> None:
        """Write the updates of at most `CLIENTS_OF_A_FORK` clients, computed in company by one process."""
        count, digest = len(seeds), digest_of(images, labels)
        rng = Generator().manual_seed(stream("company", digest))
        others = torch.randint(len(self.company), (CLIENTS_OF_A_FORK - count, labels.shape[1]), generator=rng)
        images = torch.cat([images, self.company.images[others]])
        labels = torch.cat([labels, self.company.labels[others]])
        seeds = [*seeds, *(stream("company", digest, place) for place in range(len(others)))]
        order = torch.randperm(CLIENTS_OF_A_FORK, generator=rng).tolist()
        last = max(i for i, place in enumerate(order) if place < count)
        with self.process.fork(self.defense, self._work, self._seconds) as answer:
            for place in order[: last + 1]:
                try:
                    sent = answer((images[place].numpy(), labels[place].tolist(), seeds[place]))
                except _Silence:
                    raise
                except DefenseFault:
                    if place < count:  # A fault over company is none of these clients.
                        raise
                    continue
                if place < count:
                    for name, u in _from_bytes(sent, self.params).items():
                        updates[name][place] = u

    @cached_property
    def _work(self) -> bytes:
        file = io.BytesIO()
        try:
            torch.save((self.task, self.params), file)
        except (AttributeError, TypeError, PicklingError) as error:
            raise DefenseFault(
                f"the network cannot be sent to the processes in which plugins run: {error}; define its classes and "
                "functions at the top of a file"
            ) from error
        return file.getvalue()

    @cached_property
    def _seconds(self) -> float:
        """The limit of one client."""
        images = self.company.images[torch.zeros(self.task.schedule.images, dtype=torch.long)]
        batch = Batch(images.float() / 255, self.company.labels[:1].expand(len(images)))
        started = time.perf_counter()
        Chain((NoDefense(),)).update(self.task, self.params, batch, Generator())
        return max(LEAST_SECONDS, MOST_TIMES * (time.perf_counter() - started))


def serve_forks() -> None:
    """The pristine process: imports plugins, and forks itself for every batch until the other end is gone."""
    control, plugins = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    torch.set_num_threads(1)
    registry = Registry(plugins)
    while True:
        said, lines, _, _ = socket.recv_fds(control, 1, 1)
        if not said:
            return
        code = _serve_batch(registry, control, Connection(lines[0]))
        with suppress(BrokenPipeError):
            control.sendall(str(code).encode())


def _serve_batch(registry: Registry, control: socket.socket, line: Connection) -> int:
    """Fork a process for the clients that come by the line; returns the code with which it ends."""
    with closing(line):
        defense, seconds = line.recv()
        work = line.recv_bytes()
        try:
            for part in defense:  # Once and for all: the forks need not import it again.
                registry.cls("defense", part.name)
        except Exception as error:  # As for every plugin file.
            line.send(("fault", str(error)))
            return 0
        sys.stdout.flush()
        # The only other thread looks whether the parent lives; it holds no lock that a fork could miss.
        child = os.fork()
        if child == 0:
            try:
                control.close()
                _compute(registry, line, defense, work, seconds)
                sys.stdout.flush()
                os._exit(0)
            except Exception as error:  # A plugin may fail while it is built, or while its network is read.
                line.send(("fault", f"{type(error).__name__}: {error}"))
            finally:
                os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _compute(registry: Registry, line: Connection, defense: ChainSpec, work: bytes, seconds: float) -> None:
    """The forked process: answers client after client until the line is closed."""

    def over(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"one client took over {seconds:g} s")

    signal.signal(signal.SIGALRM, over)
    own = [str(registry.sources("defense", name)) for name in registry.foreign("defense", [p.name for p in defense])]
    chain = Chain(tuple(registry.build("defense", part) for part in defense))
    task, params = torch.load(io.BytesIO(work), weights_only=False)
    line.send(("sent", os.getpid()))
    with suppress(EOFError):
        while True:
            pixels, labels, seed = line.recv()
            batch = Batch(torch.from_numpy(pixels).float() / 255, torch.tensor(labels))
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                update = chain.update(task, params, batch, Generator().manual_seed(seed))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (Exception, SystemExit) as error:  # A plugin may even try to leave.
                signal.setitimer(signal.ITIMER_REAL, 0)
                line.send(("fault", f"{type(error).__name__}: {error} ({_place(error, chain, own)})"))
            else:
                line.send(("sent", b"".join(_bytes(update[name]) for name in params)))


def _place(error: BaseException, chain: Chain, files: Sequence[str]) -> str:
    """The innermost line of the plugins that an error came from, else the first line of a plugin's method."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if frames:
        return f"{frames[-1].filename}:{frames[-1].lineno}"
    parts = [part for part in chain.parts if inspect.getfile(type(part)) in files]
    guilty = next((part for part in parts if f"{type(part).__name__} " in str(error)), parts[-1])
    method = getattr(type(guilty), role_of(type(guilty)))
    return f"{inspect.getfile(type(guilty))}:{inspect.getsourcelines(method)[1]}"


def _answer(line: Connection, seconds: float, what: str) -> Any:
    """The next message of the other end; raises `DefenseFault` for a fault of the plugin, and for silence."""
    if not line.poll(seconds):
        raise _Silence(f"it took over {seconds:g} s for {what}")
    kind, said = line.recv()
    if kind == "fault":
        raise DefenseFault(said)
    return said


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _from_bytes(sent: bytes, params: Params) -> Update:
    """The update of names, shapes and types of the parameters whose entries these are, one after the other."""
    sizes = [p.numel() * p.element_size() for p in params.values()]
    parts = torch.frombuffer(bytearray(sent), dtype=torch.uint8).split(sizes)
    return {name: part.view(p.dtype).view(p.shape) for (name, p), part in zip(params.items(), parts, strict=True)}


def _ended(parent: int, process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    if os.getpid() != parent:  # A fork of the parent that ends has nothing to end.
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
