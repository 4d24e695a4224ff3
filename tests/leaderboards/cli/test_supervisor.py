"""The two processes of a run: what signals and deaths do, and that what goes on afterwards equals a calm run."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import leakboard
from bench import child_process
from bench.engines import supervisor

GRID = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 100
attacks = [{ name = "inverting_gradients", iterations = 50 }]
defenses = ["none", { name = "gaussian_noise", std = [0.001, 0.1] }]
controls = false

[engine]
threads = 1
"""
BLOCKS = 15  # 5 of 20 images x 3 defenses
PLUGIN = '''
import os
from dataclasses import dataclass
from pathlib import Path

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class Deadly(Defense):
    """Ends its process as long as a file is there, and writes down that it did."""

    folder: str

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        if (Path(self.folder) / "armed").exists():
            with open(Path(self.folder) / "deaths", "a") as file:
                file.write("died\\n")
            os._exit(7)
        return update
'''

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Started:
    """A run in a folder of its own, started as a user would: its two processes, and what it left."""

    def __init__(self, folder, *arguments):
        self.folder, self.blocks = folder, folder / "runs" / "many" / "blocks"
        (folder / "many.toml").write_text(GRID)
        command = [sys.executable, "-P", "-m", "leakboard", "run", "many.toml", "--no-report", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
        )

    @property
    def worker(self):
        """The number of the process that computes."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children) as file:
            found = file.read().split()
        return int(found[0]) if found else None

    def finished(self):
        """Name of every published block -> when it was."""
        return {path.name: path.stat().st_mtime_ns for path in self.blocks.glob("*.json")}

    def wait_for(self, blocks):
        """Until so many more blocks are published than there were."""
        wanted, deadline = len(self.finished()) + blocks, time.monotonic() + 120
        while len(self.finished()) < wanted and self.process.poll() is None:
            assert time.monotonic() < deadline, self.process.communicate()[1]
            time.sleep(0.01)

    def end(self):
        """Exit code and messages of the command."""
        err = self.process.communicate(timeout=240)[1]
        assert "Traceback" not in err, err
        return self.process.returncode, err


def gone(pid):
    """Whether the process has ended; a zombie that nobody has waited for has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def results(run):
    """What is stored of the results, times apart: names to bytes of arrays and to scores."""
    arrays = {path.name: path.read_bytes() for path in (run / "blocks").glob("*.npz")}
    records = {path.name: json.loads(path.read_text()) for path in (run / "blocks").glob("*.json")}
    return arrays, {
        name: (record["status"], [{**row, "seconds": 0} for row in record.get("images", [])])
        for name, record in records.items()
    }


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The results of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "many.toml").write_text(GRID)
    run = leakboard.run(folder / "many.toml", output=folder / "run")
    assert run.counts() == {"ok": BLOCKS}
    return results(run.folder)


SIGNALS = {
    "Ctrl-C in a terminal": (lambda run: os.killpg(run.process.pid, signal.SIGINT), 130),
    "SIGINT to the parent": (lambda run: run.process.send_signal(signal.SIGINT), 130),
    "SIGTERM to the parent": (lambda run: run.process.terminate(), 143),
}


@pytest.mark.parametrize("how", SIGNALS)
def test_stopping_ends_both_processes_and_keeps_every_finished_block(calm, tmp_path, how):
    send, code = SIGNALS[how]
    run = Started(tmp_path)
    run.wait_for(2)
    worker = run.worker
    send(run)
    ended, err = run.end()
    assert ended == code
    assert err.endswith("leakboard: stopped; the same command goes on where this one ended\n")
    assert gone(worker)
    arrays, scores = results(tmp_path / "runs" / "many")
    assert 2 <= len(scores) < BLOCKS
    assert scores == {name: calm[1][name] for name in scores}
    assert arrays.items() <= calm[0].items()


@pytest.mark.parametrize("delay", [0.1, 0.5, 1.0, 1.5, 2.5])
def test_ctrl_c_while_everything_is_imported_is_no_traceback(tmp_path, delay):
    run = Started(tmp_path)
    time.sleep(delay)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.end()[0] in (130, -signal.SIGINT)  # the latter before the run itself has begun


def killed_until_done(folder, kills, rng, *arguments, last=lambda run: run.end()[0]):
    """Kill the parent again and again at random moments, then let the run end: what was finished stays as it is."""
    kept = {}
    for _ in range(kills):
        run = Started(folder, *arguments)
        run.wait_for(1)
        time.sleep(rng.uniform(0, 0.3))
        worker = run.worker
        run.process.kill()
        run.end()
        assert worker is None or gone(worker)
        found = run.finished()
        assert found.items() >= kept.items()
        kept = found
    run = Started(folder, *arguments)
    assert last(run) == 0
    assert run.finished().items() >= kept.items()
    assert {path.suffix for path in run.blocks.iterdir()} == {".json", ".npz"}
    return results(folder / "runs" / "many")


def test_deaths_of_the_parent_and_of_the_worker_change_no_result(calm, tmp_path):
    """The first takes the worker along, after the second the parent starts another one."""

    def kill_the_worker(run):
        run.wait_for(2)
        os.kill(run.worker, signal.SIGKILL)
        code, err = run.end()
        assert err.count("leakboard: the worker was killed by signal 9 in block ") == 1
        return code

    assert killed_until_done(tmp_path, 1, random.Random(0), last=kill_the_worker) == calm


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_no_result(tmp_path):
    (tmp_path / "many.toml").write_text(GRID)
    calm = leakboard.run(tmp_path / "many.toml", output=tmp_path / "calm", overrides=["grid.seeds=[0,1,2,3]"])
    killed = killed_until_done(tmp_path, 10, random.Random(0), "--set", "grid.seeds=[0,1,2,3]")
    assert len(killed[1]) == 4 * BLOCKS
    assert killed == results(calm.folder)


def test_two_commands_on_one_run_do_not_disturb_each_other(calm, tmp_path):
    """Nor do folders of the user that are called as ours are."""
    for name in ("attacks", "bench", "defenses", "leaderboards", "torch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    one, other = Started(tmp_path), Started(tmp_path)
    assert (one.end()[0], other.end()[0]) == (0, 0)
    assert results(tmp_path / "runs" / "many") == calm


def test_a_block_that_ends_its_worker_is_given_up_after_two_deaths_and_tried_again_when_asked(tmp_path):
    (tmp_path / "deadly.py").write_text(PLUGIN)
    (tmp_path / "armed").touch()
    defenses = f"""grid.defenses=["none", "deadly(folder='{tmp_path}')"]"""
    arguments = ["--plugin", "deadly.py", "--set", "grid.images=4", "--set", defenses]
    run = Started(tmp_path, *arguments)
    code, err = run.end()
    assert code == 1
    # Once in the company of the undefended block, then twice alone.
    assert err.count("leakboard: the worker left with code 7 in block ") == 3
    assert (tmp_path / "deaths").read_text() == "died\n" * 3
    assert "blocks without a result: 1 crashed" in err
    assert sorted(status for status, _ in results(run.folder / "runs" / "many")[1].values()) == ["crashed", "ok"]
    (tmp_path / "armed").unlink()
    code, err = Started(tmp_path, *arguments, "--retry", "crashed").end()
    assert code == 0, err
    assert {status for status, _ in results(run.folder / "runs" / "many")[1].values()} == {"ok"}


WORKER = """
import os, signal, sys, time
from pathlib import Path
from bench.store.block_marks import BlockMarks

life = len(Path("lives").read_text()) if Path("lives").exists() else 0
Path("lives").write_text("x" * (life + 1))
with open("heard", "a") as file:
    file.write(os.environ["LEAKBOARD_WORKER"] + ";")
"""


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """Supervises a stand-in for the worker, in this process; returns the exit code."""
    (tmp_path / "blocks").mkdir()
    monkeypatch.chdir(tmp_path)
    start = subprocess.Popen

    def supervise(body):
        def popen(command, **options):
            assert command[1:] == ["-P", "-m", "bench.child_process", str(os.getpid()), "leakboard:main", "run"]
            return start([sys.executable, "-c", WORKER + body], **options)

        monkeypatch.setattr(child_process.subprocess, "Popen", popen)
        before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
        code = supervisor.supervise(["run"], tmp_path)
        assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before
        return code

    return supervise


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_the_worker_s(supervised, tmp_path, code):
    assert supervised(f"sys.exit({code})") == code
    assert (tmp_path / "lives").read_text() == "x"


def test_a_restarted_worker_hears_in_which_block_the_last_one_died(supervised, tmp_path, capsys):
    body = """
if life < 3:
    BlockMarks(Path("blocks")).start(f"block{life}")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert supervised(body) == 0
    assert (tmp_path / "heard").read_text() == ";block0;block1;block2;"
    assert sorted(os.listdir("blocks")) == ["block0.deaths", "block1.deaths", "block2.deaths"]
    assert capsys.readouterr().err.splitlines()[0] == (
        "leakboard: the worker was killed by signal 9 in block block0; going on"
    )


def test_a_worker_that_dies_outside_of_a_block_ends_the_command(supervised, tmp_path, capsys):
    assert supervised("os.kill(os.getpid(), signal.SIGKILL)") == 1
    assert (tmp_path / "lives").read_text() == "x"
    assert "the worker was killed by signal 9 outside of a block" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_worker_that_is_stopped_alone_ends_the_command(supervised, tmp_path, capsys, number, code):
    body = f"signal.signal({number}, signal.SIG_DFL); BlockMarks(Path('blocks')).start('b')\n"
    body += f"signal.pthread_sigmask(signal.SIG_UNBLOCK, [{number}]); os.kill(os.getpid(), {number})"
    assert supervised(body) == code
    assert (tmp_path / "lives").read_text() == "x"
    assert not (tmp_path / "blocks" / "b.deaths").exists()
    assert capsys.readouterr().err == "leakboard: stopped; the same command goes on where this one ended\n"


def test_a_second_ctrl_c_does_not_wait_for_a_worker_that_does_not_end(supervised, tmp_path):
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
for _ in range(2):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.2)
time.sleep(60)
"""
    started = time.monotonic()
    assert supervised(body) == 130
    assert time.monotonic() - started < 20
