"""The command as a user meets it: messages, exit codes, what is left on disk."""

import csv
import errno
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.engines import supervisor
from bench.store import whole_files
from leaderboards.cli.main import main
from leaderboards.entries.board import NO_PUBLIC_IMAGES, boards

GRID = (Path(__file__).parents[2] / "small.toml").read_text()
PLUGIN = '''
from dataclasses import dataclass

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class Mine(Defense):
    """What a user wrote."""

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        BODY
'''


@pytest.fixture
def leakboard(monkeypatch, capsys, tmp_path):
    """Gives the command in this process, as the worker that it would start: exit code, output and messages."""
    (tmp_path / "small.toml").write_text(GRID)
    return _command(monkeypatch, capsys, tmp_path)


def _command(monkeypatch, capsys, folder):
    monkeypatch.chdir(folder)
    monkeypatch.setenv(supervisor.WORKER, "")
    monkeypatch.setattr(supervisor, "become_worker", lambda: None)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["leakboard", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        return leaving.value.code or 0, told.out, told.err

    return command


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with `small.toml` and its finished run, which nobody changes."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.toml").write_text(GRID)
    import leakboard

    leakboard.run(folder / "small.toml", output=folder / "runs" / "small")
    return folder


@pytest.fixture
def reading(finished, monkeypatch, capsys):
    """The command in the folder of the finished run."""
    return _command(monkeypatch, capsys, finished)


def results(run):
    """What is stored of the results, times apart: names to bytes of arrays and to scores."""
    arrays = {path.name: path.read_bytes() for path in (run / "blocks").glob("*.npz")}
    records = {path.name: json.loads(path.read_text()) for path in (run / "blocks").glob("*.json")}
    return arrays, {name: [{**row, "seconds": 0} for row in record["images"]] for name, record in records.items()}


def child(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


MISTAKES = [
    ("grid.imags=4", r"--set grid\.imags: unknown key; did you mean 'grid\.images'\?"),
    ("images=4", r"did you mean 'grid\.images'\?"),
    ("grid.images", r"--set 'grid\.images' is not KEY=VALUE; for example"),
    ("grid.images=four", r"small\.toml: grid\.images.* got 'four'"),
    ("grid.images=0", r"grid\.images must be at least 1, got 0"),
    ("grid.images=4.5", r"grid\.images.* got 4\.5"),
    ("grid.images=5000", r"grid\.images = 5000, but digits has 360 images to attack; ask for fewer"),
    ("grid.dataset=digit", r"unknown dataset 'digit'; did you mean 'digits'\?"),
    ('grid.models=["lenet-zu"]', r"unknown model 'lenet-zu'; did you mean 'lenet-zhu'\?"),
    ('grid.models=["mlp(hiden=[3])"]', r"model mlp has no parameter 'hiden'; did you mean 'hidden'\?"),
    ('grid.models=["resnet18"]', r"model resnet18 cannot take images of 8x8 with 1 channels: .* choose another"),
    ('grid.attacks=["linear_layr"]', r"grid\.attacks\[0\]: unknown attack 'linear_layr'; did you mean 'linear_layer'"),
    ('grid.defenses=["gausian_noise(std=1)"]', r"unknown defense 'gausian_noise'; did you mean 'gaussian_noise'\?"),
    ('grid.defenses=["gaussian_noise(sdt=1)"]', r"unknown parameter 'sdt'; did you mean 'std'\?"),
    ('grid.defenses=["gaussian_noise(std=-1)"]', r"std must be at least 0 and finite, got -1\.0"),
    ("grid.defenses=[\"gaussian_noise(std='a')\"]", r"std must be float, got 'a'"),
    ('grid.defenses=["gaussian_noise"]', r"std is required \(float\); write gaussian_noise\(std=\.\.\.\)"),
    ('grid.defenses=["none', r"is not valid TOML: .*; quote it for the shell"),
    ("grid.defenses=[]", r"grid\.defenses is empty; give at least one"),
    ('grid.defenses=["larger_batch(examples=3)"]', r"does not divide into clients of 3 images; the next .* is 6"),
    ('grid.defenses=["gaussian_noise(std=1) | dp_sgd"]', r"a chain is schedules, then at most one share"),
    ('grid.weights=["no.pt"]', r"weights: no checkpoint file no\.pt; give an existing path"),
    ('grid.weights=["small.toml"]', r"grid\.weights\[0\] must be 'untrained', a number of epochs or a checkpoint"),
    ('grid.weights=["bad.pt"]', r"cannot read the checkpoint bad\.pt: .*; save model\.state_dict\(\)"),
    ('grid.weights=[{epochs=2,dataset="mnist-samples"}]', r"mnist-samples has no training images besides those"),
    ('grid.weights=[{epochs=2,dataset="cifar10-jpeg",root="no"}]', r"dataset cifar10-jpeg: not found; looked for no"),
    ("grid.threat.labels=knwon", r"grid\.threat\.labels\[0\] must be 'known', 'recovered' or 'joint', got 'knwon'"),
    ("grid.threat.defense_known=yes", r"grid\.threat\.defense_known\[0\]: must be a valid boolean, got 'yes'"),
    ("engine.chunk=0", r"engine\.chunk must be at least 1, got 0"),
    ("engine.device=tpu", r"engine\.device must be 'auto', 'cpu' or 'cuda', got 'tpu'"),
    ("engine.execution=fast", r"engine\.execution must be 'auto', 'eager', 'compile' or 'graph', got 'fast'"),
    ("engine.precision=half", r"engine\.precision must be 'float32', 'tf32' or 'bfloat16', got 'half'"),
    ("name=../up", r"name must be letters, .* got '\.\./up'; it names the run's folder: rename the file, or --set"),
    ('grid.dataset={name="digits",root="x"}', r"dataset digits has no parameter 'root'; known: size"),
    ('grid.dataset={name="fashion-mnist",root="no"}', r"no t10k-images-idx3-ubyte\.gz; looked in no, .*; run `apt-get"),
    ('grid.dataset={name="CIFAR10",root="no"}', r"dataset CIFAR10: cannot be read from no: .*; give root, or set down"),
    ("grid.dataset=folder", r"dataset folder: give root, the folder that holds the images"),
    ('grid.dataset={name="folder",root="no"}', r"dataset folder: root no is not a folder; give the one that holds"),
    ('grid.dataset={name="folder",root="empty"}', r"no images in empty or its sub-folders \(\.png .*\); give the"),
    ('grid.dataset={name="folder",root="torn"}', r"cannot read the image torn/1\.png: .*; replace or remove it"),
    (
        'grid.dataset={name="folder",root="mixed"}',
        r"the images differ in size: mixed/0\.png is 8x8 and mixed/1\.png is",
    ),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_a_message_and_code_2_before_anything_runs(leakboard, tmp_path, override, message):
    (tmp_path / "bad.pt").write_text("no checkpoint")
    for folder in ("empty", "torn", "mixed"):
        (tmp_path / folder).mkdir()
    for i, side in enumerate((8, 9)):
        picture = Image.fromarray(np.full((side, side), 7, np.uint8))
        picture.save(tmp_path / "mixed" / f"{i}.png")
        picture.save(tmp_path / "torn" / f"{i}.png")
    (tmp_path / "torn" / "1.png").write_bytes((tmp_path / "torn" / "0.png").read_bytes()[:-30])
    code, out, err = leakboard("run", "small.toml", "--set", override)
    assert (code, out) == (2, "")
    assert err.startswith("leakboard: ")
    assert re.search(message, err), err
    assert not (tmp_path / "runs").exists()


FILES = {
    "syntax": (b"[grid\n", r"grid\.toml is not valid TOML: .*line 1"),
    "no text": (b"\xff\xfe", r"grid\.toml cannot be read as text"),
    "empty": (b"", r"grid\.toml: grid is missing; add it"),
    "no table": (b"grid = 3", r"grid\.toml: grid must be a table, got 3"),
    "a key": (GRID.replace("images =", "imges =").encode(), r"unknown key grid\.imges; did you mean 'grid\.images'"),
    "a section": (GRID.replace("[engine]", "[engin]").encode(), r"unknown key engin; did you mean 'engine'"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_grid_is_a_message(leakboard, tmp_path, kind):
    content, message = FILES[kind]
    (tmp_path / "grid.toml").write_bytes(content)
    code, _, err = leakboard("run", "grid.toml")
    assert code == 2
    assert re.search(message, err), err


def test_a_board_is_shown_to_the_letter_and_beside_it_the_notice_about_its_attacks(leakboard):
    code, out, err = leakboard("board", "show", "fashion-mnist-v1")
    assert (code, out) == (0, boards()["fashion-mnist-v1"])
    assert err == f"leakboard: {NO_PUBLIC_IMAGES}\n"


def test_a_byte_order_mark_does_no_harm(leakboard, tmp_path):
    (tmp_path / "grid.toml").write_bytes(b"\xef\xbb\xbf" + GRID.encode())
    assert leakboard("plan", "grid.toml")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "'quik' is neither a preset nor a file; did you mean 'quick'?"),
        (["run", "."], "'.' is a folder; known: "),
        (["run", "small.toml", "--retry", "crash"], "cannot retry 'crash'; did you mean 'crashed'?"),
        (["run", "small.toml", "--retry", "ok"], "cannot retry 'ok'; "),
        (["run", "small.toml", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["run", "small.toml", "--execution", "fast"], "'fast' is not one of 'auto', 'eager', 'compile', 'graph'"),
        (["run", "small.toml", "--precision", "half"], "'half' is not one of 'float32', 'tf32', 'bfloat16'"),
        (["run"], "Missing argument 'SPEC'"),
        (["run", "small.toml", "--nope"], "No such option: --nope"),
        (
            ["run", "small.toml", "-o", "small.toml/x"],
            "cannot write a run to small.toml/x: Not a directory; give",
        ),
        (["runn", "small.toml"], "No such command 'runn'. Did you mean 'run'?"),
        (["list", "defense"], "nothing to list under 'defense'; did you mean 'defenses'?"),
        (["table", "nowhere"], "nowhere is no run: it has no plan.json; give the folder"),
        (["export", "nowhere", "--to", "x.csv"], "nowhere is no run"),
        (["run", "small.toml", "--plugin", "no.py"], "no.py does not exist or is not a file; give a Python file"),
    ],
)
def test_bad_usage_is_a_message_and_code_2(leakboard, tmp_path, arguments, message):
    code, out, err = leakboard(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert os.listdir(tmp_path) == ["small.toml"]


def test_a_device_that_is_not_there_is_refused(leakboard, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = leakboard("run", "small.toml", "--device", "cuda")
    assert (code, err) == (2, "leakboard: device cuda: torch sees no GPU here; use --device cpu or auto\n")


@pytest.mark.parametrize(("key", "value"), [("execution", "graph"), ("precision", "tf32")])
def test_what_needs_a_gpu_is_refused_on_the_cpu_before_anything_is_written(
    leakboard, tmp_path, monkeypatch, key, value
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = leakboard("run", "small.toml", f"--{key}", value)
    assert code == 2
    assert err == f"leakboard: engine.{key} = '{value}' needs a GPU and this run is on the CPU; leave it out\n"
    assert not (tmp_path / "runs").exists()


def test_execution_and_precision_of_the_command_stand_above_those_of_the_grid_file(leakboard, tmp_path):
    grid = tmp_path / "small.toml"
    grid.write_text(grid.read_text() + 'execution = "compile"\nprecision = "float32"\n')
    short = ["--set", "grid.controls=false", "--set", 'grid.attacks=["inverting_gradients(iterations=4)"]']
    options = ["--execution", "eager", "--precision", "bfloat16", "--no-report"]
    assert leakboard("run", "small.toml", *short, *options)[0] == 0
    resolved = (tmp_path / "runs" / "small" / "run.toml").read_text()
    assert 'execution = "eager"' in resolved
    assert 'precision = "bfloat16"' in resolved
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs" / "small" / "blocks").glob("*.json")]
    hows = [record["cost"]["execution"][0] for record in records]
    assert [(how["execution"], how["precision"]) for how in hows] == [("eager", "bfloat16")] * 3


PLUGINS = {
    "import nosuchmodule": r"defense mine from file .*mine\.py is broken: ModuleNotFoundError: .*mine\.py:1\)",
    "def f(:": r"defense mine from file .*mine\.py is broken: SyntaxError: invalid syntax .*mine\.py:1\)",
    "raise SystemExit(3)": r"defense mine from file .*mine\.py is broken: SystemExit: 3",
    "x = 1": r"^leakboard: plugin .*mine\.py defines no attack or defense; derive one public class",
}


@pytest.mark.parametrize("text", PLUGINS)
def test_a_plugin_that_cannot_be_used_is_a_message_that_names_the_file_once(leakboard, tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    code, _, err = leakboard("run", "small.toml", "--plugin", "mine.py", "--set", 'grid.defenses=["mine"]')
    assert code == 2
    assert re.search(PLUGINS[text], err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


FAULTS = {
    "raise RuntimeError('out of luck')": "RuntimeError: out of luck",
    "raise SystemExit(3)": "SystemExit: 3",
    "return {name: u[..., :1] for name, u in update.items()}": "the parameter is",
    "[u.zero_() for u in update.values()]; return update": "wrote into its argument",
}


@pytest.mark.parametrize("body", FAULTS)
def test_a_plugin_that_fails_is_a_cell_with_a_status_and_code_1(leakboard, tmp_path, body):
    (tmp_path / "mine.py").write_text(PLUGIN.replace("BODY", body))
    grid = ["--set", 'grid.defenses=["none","mine"]', "--set", "grid.controls=false", "--plugin", "mine.py"]
    code, out, err = leakboard("run", "small.toml", *grid)
    assert code == 1
    assert re.search(r"^mine \(unaudited\) +error \[1\] +error \[1\]$", out, re.MULTILINE)
    assert re.search(r"^none +[\d.]+ ± [\d.]+ +100\.00 ± 0\.00$", out, re.MULTILINE)
    assert "blocks without a result: 2 error; see `leakboard status runs/small`" in err
    code, out, _ = leakboard("status", "runs/small")
    assert code == 0
    assert "    error  2 blocks\n       ok  2 blocks\n" in out
    assert FAULTS[body] in out
    assert "to try again: add --retry error to the run's command" in out
    where = re.search(r"\(traceback in (.*)\)", out)
    assert where is not None
    assert "Traceback" in json.loads(Path(where[1]).read_text())["traceback"]
    (tmp_path / "mine.py").write_text(PLUGIN.replace("BODY", "return update"))
    assert leakboard("run", "small.toml", *grid, "--no-report")[0] == 0


def test_a_run_ends_in_the_table_and_the_plots_and_again_has_nothing_to_do(leakboard, tmp_path):
    code, out, err = leakboard("run", "small.toml")
    assert code == 0
    assert "PSNR in dB: mean ± SD over images" in out
    assert re.search(r"^plots: runs/small/plots \(curves-.*\.png, heatmap-.*\.png, gallery-.*\.png\)$", out, re.M)
    assert len(list((tmp_path / "runs/small/plots").iterdir())) == 6
    # A log gets a line now and then, not a bar redrawn over and over.
    assert "\r" not in err
    assert re.fullmatch(r"0\.0/24 blocks .*\n24\.0/24 blocks .*\n", err)
    stored = results(tmp_path / "runs/small")
    again = leakboard("run", "small.toml")
    assert again == (0, out, "leakboard: nothing left to run in runs/small\n")
    assert results(tmp_path / "runs/small") == stored


def test_the_run_s_name_names_its_folder(leakboard, tmp_path):
    only = ["--set", "grid.controls=false", "--set", 'grid.defenses=["none"]', "--no-report"]
    assert leakboard("run", "small.toml", "--set", "name=another", *only)[0] == 0
    (tmp_path / "small.toml").write_text('name = "third"\n' + GRID)
    assert leakboard("run", "small.toml", *only)[0] == 0
    assert leakboard("run", "small.toml", "-o", "else/where", *only)[0] == 0
    assert sorted(os.listdir(tmp_path / "runs")) == ["another", "third"]
    assert (tmp_path / "else/where/plan.json").is_file()


def test_the_folder_that_is_supervised_is_the_one_that_is_written(monkeypatch, tmp_path):
    from leaderboards.cli.main import _default_folder

    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(GRID)
    assert _default_folder("small.toml", []) == Path("runs/small")
    assert _default_folder("small.toml", ["name=another"]) == Path("runs/another")
    Path("small.toml").write_text('name = "third"\n' + GRID)
    assert _default_folder("small.toml", []) == Path("runs/third")


def test_results_of_another_grid_stay_and_come_back(leakboard, tmp_path):
    few = ["--set", 'grid.defenses=["none"]', "--no-report"]
    assert leakboard("run", "small.toml", "--no-report")[0] == 0
    stored = results(tmp_path / "runs/small")
    code, _, err = leakboard("run", "small.toml", *few)
    assert code == 0
    assert "16 stored blocks are of cells that this grid does not have: they stay, outside its tables" in err
    assert len(leakboard("export", "runs/small", "--to", "x.csv")[1]) > 0
    assert len(pd.read_csv("x.csv")) == 4 * 8
    code, _, err = leakboard("run", "small.toml", "--no-report")
    assert err == "leakboard: nothing left to run in runs/small\n"
    assert results(tmp_path / "runs/small") == stored


@pytest.mark.parametrize("after", [0, 2, 5, 18])
def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(leakboard, finished, tmp_path, monkeypatch, after):
    """`after` files were written; the first three are those of the run itself."""
    real, count = whole_files.os.replace, [0]

    def replace(source, target):
        count[0] += 1
        if count[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as full:
        full.setattr(whole_files.os, "replace", replace)
        code, out, err = leakboard("run", "small.toml")
    assert (code, out) == (2 if after < 3 else 1, "")
    assert (
        "No space left on device; free some space and give the same command again, everything finished is kept" in err
    )
    files = (path for path in (tmp_path / "runs/small").rglob("*") if path.is_file() and path.name != "run.lock")
    kept = {path: path.read_bytes() for path in files}
    assert len(kept) == after
    assert leakboard("run", "small.toml", "--no-report")[0] == 0
    assert all(path.read_bytes() == content for path, content in kept.items() if path.name != "plan.json")
    assert results(tmp_path / "runs/small") == results(finished / "runs/small")


def test_plots_that_cannot_be_written_are_a_message_after_the_table(leakboard, tmp_path):
    (tmp_path / "runs/small").mkdir(parents=True)
    (tmp_path / "runs/small/plots").write_text("in the way")
    code, out, err = leakboard("run", "small.toml")
    assert code == 1
    assert "PSNR in dB" in out
    assert "cannot write runs/small/plots: " in err
    assert leakboard("plot", "runs/small")[0] == 1


def test_status_of_a_finished_run(reading):
    assert reading("status", "runs/small") == (0, "       ok  24 blocks\n", "")


def rows_of(reading, command, format, words):
    """What the command prints in a format for machines; None for one to be read, which has these words."""
    code, out, err = reading(command, "runs/small", "--format", format)
    assert (code, err) == (0, "")
    assert out.endswith("\n")
    assert not out.endswith("\n\n")
    match format:
        case "csv":
            return list(csv.DictReader(out.splitlines()))
        case "json":
            return json.loads(out)
        case _:
            assert words in out
            return None


@pytest.mark.parametrize("format", ["text", "csv", "markdown", "latex", "json"])
def test_every_format_of_the_ranking_ends_in_one_newline_and_can_be_read(reading, format):
    rows = rows_of(reading, "rank", format, words="Nobody is ranked")
    if rows is None:
        return
    assert [row["defense_name"] for row in rows] == ["none", "gaussian_noise", "gaussian_noise"]
    # 8 x 8 pixels have no SSIM: there is no leakage to rank by, and the reason is said.
    assert {row["rank"] for row in rows} <= {None, ""}
    assert all("4 images, 100 are needed" in row["unranked"] for row in rows)


def test_a_ranking_says_what_it_was_asked_for_and_cannot_find(reading):
    code, out, _ = reading("rank", "runs/small", "--required", "linear_layer", "--required", "nothing")
    assert code == 0
    assert "the required attack nothing is missing" in out.replace("\n", " ")
    code, _, err = reading("rank", "runs/small", "--margin", "2")
    assert (code, err) == (2, "leakboard: margin must lie in [0, 1), got 2.0; it is a difference of SSIM\n")


@pytest.mark.parametrize("format", ["text", "csv", "markdown", "latex", "json"])
def test_every_format_of_the_table_ends_in_one_newline_and_can_be_read(reading, format):
    rows = rows_of(reading, "table", format, words="100.00")
    if rows is None:
        return
    assert len(rows) == 24
    exact = [row for row in rows if (row["attack"], row["defense"]) == ("linear_layer", "none")]
    assert [float(row["psnr_db_mean"]) for row in exact] == [100.0]
    assert exact[0]["ssim_mean"] in (None, "")  # 8 x 8 pixels are under the window


def test_plot_prints_the_files_that_it_draws(reading, finished):
    code, out, _ = reading("plot", "runs/small")
    assert code == 0
    drawn = [finished / line for line in out.splitlines()]
    assert len(drawn) == 6
    assert all(path.stat().st_size > 1000 for path in drawn)


def test_an_export_is_read_back_with_its_types_and_nulls(reading, finished, tmp_path):
    import leakboard

    wanted = leakboard.run(finished / "small.toml", output=finished / "runs/small").frame()
    for suffix, read in ((".parquet", pd.read_parquet), (".csv", pd.read_csv)):
        code, out, _ = reading("export", "runs/small", "--to", tmp_path / f"x{suffix}")
        assert (code, out) == (0, f"96 rows -> {tmp_path / f'x{suffix}'}\n")
        frame = read(tmp_path / f"x{suffix}")
        assert list(frame.columns) == list(wanted.columns)
        assert frame["image"].tolist() == wanted["image"].tolist()
        assert pd.api.types.is_integer_dtype(frame["image"])
        assert pd.api.types.is_bool_dtype(frame["control"])
        assert pd.api.types.is_bool_dtype(frame["schedule_known"])
        assert frame["ssim"].isna().all()
        assert frame["ssim"].dtype == frame["psnr_db"].dtype == np.float64
        np.testing.assert_array_equal(frame["psnr_db"], wanted["psnr_db"])
        assert set(frame["identified"]) == {0.0, 1.0}
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), wanted)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("x.xlsx", "--to x.xlsx: the file must end in .parquet or .csv"),
        ("x", "--to x: the file must end in .parquet or .csv"),
        ("no/x.csv", "cannot write no/x.csv: "),
        ("no/x.parquet", "cannot write no/x.parquet: "),
        ("runs/x.csv/x.csv", "cannot write runs/x.csv/x.csv: "),
    ],
)
def test_an_export_that_cannot_be_is_a_message(reading, to, message):
    code, out, err = reading("export", "runs/small", "--to", to)
    assert (code, out) == (2, "")
    assert message in err


def test_damage_is_a_message_and_the_same_command_mends_it(leakboard, finished, tmp_path):
    assert leakboard("run", "small.toml", "--no-report")[0] == 0
    blocks = sorted((tmp_path / "runs/small/blocks").glob("*.npz"))
    content = blocks[0].read_bytes()
    blocks[0].write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    (tmp_path / "runs/small" / next(tmp_path.glob("runs/small/truth-*")).name).write_bytes(b"PK")
    code, _, err = leakboard("plot", "runs/small")
    assert code == 2
    assert re.search(r"truth-\w+\.npz is damaged: .*; delete it and give the run's command again", err)
    assert leakboard("run", "small.toml", "--no-report")[0] == 0  # writes the images again by itself
    blocks[0].unlink()
    assert leakboard("run", "small.toml")[0] == 0
    assert results(tmp_path / "runs/small") == results(finished / "runs/small")


def test_a_plan_of_a_finished_run_says_that_nothing_is_left(reading):
    code, out, _ = reading("plan", "small.toml")
    assert code == 0
    assert out.endswith("  ok        24 blocks\nnothing left to run\n")


def test_a_plan_states_the_hours_and_writes_nothing(leakboard, tmp_path):
    code, out, _ = leakboard("plan", "small.toml", "-o", "elsewhere")
    assert code == 0
    assert re.search(r"\([\d.e-]+ hours\) for 24 blocks on the CPU with 1 thread, from the first iterations", out)
    assert os.listdir(tmp_path) == ["small.toml"]


def test_an_expectation_that_is_missed_is_said_and_code_1(leakboard, tmp_path):
    text = GRID + '\n[expect]\nattack = "inverting_gradients"\ngain_db = 3.0\n'
    (tmp_path / "small.toml").write_text(text)
    code, _, err = leakboard("run", "small.toml", "--no-report")
    assert code == 1
    assert (
        "expected a gain of at least 3 dB over the strongest floor (expect.gain_db of the grid), but on digits" in err
    )


def test_help_takes_less_than_half_a_second_of_the_processor(tmp_path):
    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    costs = []
    for _ in range(3):
        before = spent()
        assert child("-m", "leakboard", "--help", cwd=tmp_path).returncode == 0
        costs.append(spent() - before)
    assert min(costs) < 0.5


@pytest.mark.parametrize(
    "arguments", [["list", "defenses", "--json"], ["list", "models"], ["--help"], ["run", "--help"], ["run", "quik"]]
)
def test_what_computes_nothing_imports_no_torch(tmp_path, arguments):
    code = f"""
import sys
sys.argv = ["leakboard", *{arguments}]
from leakboard import main
try:
    main()
finally:
    print(*sorted({{"torch", "opacus", "torchvision", "torchmetrics"}} & sys.modules.keys()), file=sys.stderr)
"""
    done = child("-c", code, cwd=tmp_path)
    assert done.stderr.splitlines()[0 if arguments[-1] != "quik" else -1] == "", done.stderr
    if "--json" in arguments:
        assert {"none", "dp_sgd"} <= {row["name"] for row in json.loads(done.stdout)}


def test_reading_results_imports_no_torch(finished):
    code = """
import sys
from leakboard import main
for command in ("table", "rank", "status", "plot"):
    sys.argv = ["leakboard", command, "runs/small"]
    try:
        main()
    except SystemExit as leaving:
        assert leaving.code == 0
assert "torch" not in sys.modules
"""
    done = child("-c", code, cwd=finished)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_stops_early_gets_no_traceback(finished):
    done = subprocess.run(
        f"{sys.executable} -P -m leakboard table runs/small --format json | head -1",
        shell=True, cwd=finished, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[\n", "")
