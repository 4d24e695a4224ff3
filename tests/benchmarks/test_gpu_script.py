"""The GPU script's dry run passes on the CPU, without the packages that a GPU machine may lack."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("gpu.py")
WITHOUT = """
import runpy, sys

for name in ("opacus", "pydantic", "foolbox", "pandas", "sklearn", "skimage", "torchmetrics", "pytest"):
    sys.modules[name] = None  # makes its import fail
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_dry_run_checks_and_measures_without_the_optional_packages(tmp_path):
    stored = tmp_path / "gpu.json"
    command = [sys.executable, "-c", WITHOUT, str(SCRIPT), "--dry-run", "--output", str(stored)]
    # One thread: with more, a machine whose cores are busy makes these tiny tensors wait for each other.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(stored.read_text())
    assert len(found["checks"]) == 4
    assert {row["extra_info"]["name"] for row in found["benchmarks"]} == {"convnet64", "resnet18 at 224"}
    assert found["failed"] == []
    assert "| case" in done.stdout
