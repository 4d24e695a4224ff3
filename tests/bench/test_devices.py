"""What computes: which device, in which execution and precision, and where what was compiled is kept."""

import os
from pathlib import Path

import pytest
import torch

import bench.engines.run
import leakboard
from bench.devices import choose_device, compile_costs
from bench.errors import ConfigurationError


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(no_gpu):
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigurationError, match=r"^device cuda: torch sees no GPU here; use --device cpu or auto$"):
        choose_device("cuda")


@pytest.fixture
def flags():
    """Puts torch's settings back."""
    places = [(torch.backends.cudnn, name) for name in ("allow_tf32", "benchmark", "deterministic")]
    places.append((torch.backends.cuda.matmul, "allow_tf32"))
    before = [getattr(*place) for place in places]
    yield
    for place, value in zip(places, before, strict=True):
        setattr(*place, value)


def test_auto_takes_a_gpu_that_is_there_deterministic_and_in_full_float32(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for precision in ("float32", "tf32", "bfloat16"):
        assert choose_device("auto", "graph", precision) == torch.device("cuda")
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
        assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)


@pytest.mark.parametrize("execution", ["auto", "eager", "compile"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_cpu_runs_all_that_needs_no_gpu(no_gpu, execution, precision):
    assert choose_device("auto", execution, precision) == torch.device("cpu")


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(("key", "value"), [("execution", "graph"), ("precision", "tf32")])
def test_what_needs_a_gpu_is_refused_on_the_cpu_before_anything_is_written(
    grid_file, tmp_path, no_gpu, device, key, value
):
    overrides = [f"engine.{key}={value}", f"engine.device={device}"]
    with pytest.raises(ConfigurationError, match=rf"engine\.{key} = '{value}' needs a GPU .* leave it out"):
        leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("execution", "'auto', 'eager', 'compile' or 'graph'"), ("precision", "'float32', 'tf32' or 'bfloat16'")],
)
def test_an_unknown_word_is_refused_with_those_that_are_known(grid_file, tmp_path, key, allowed):
    with pytest.raises(ConfigurationError, match=f"engine.{key} must be {allowed}, got 'fast'"):
        leakboard.run(grid_file, output=tmp_path / "run", overrides=[f"engine.{key}=fast"])
    assert not (tmp_path / "run").exists()


def test_execution_and_precision_can_stand_in_the_grid_file(grid_file):
    grid_file.write_text(grid_file.read_text() + 'execution = "eager"\nprecision = "bfloat16"\n')
    config = bench.engines.run.prepare(grid_file)[0]
    assert (config.engine.execution, config.engine.precision) == ("eager", "bfloat16")
    config = bench.engines.run.prepare(grid_file, overrides=["engine.execution=compile"])[0]
    assert (config.engine.execution, config.engine.precision) == ("compile", "bfloat16")


def test_what_was_compiled_is_kept_where_leakboard_keeps_things(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "so that it is put back")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert compile_costs() == tmp_path / "cache" / "compiling.json"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache" / "inductor")
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("LEAKBOARD_CACHE")
    assert compile_costs() == Path.home() / ".cache" / "leakboard" / "compiling.json"


def test_inductor_s_cache_stays_where_the_user_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert compile_costs() == tmp_path / "cache" / "compiling.json"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
