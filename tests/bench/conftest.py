"""A grid that runs in a second, as a file and with its results."""

from pathlib import Path

import pytest

GRID = (Path(__file__).parents[1] / "small.toml").read_text()

PLUGIN = '''
"""Signs instead of values."""

from dataclasses import dataclass

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class SignCompression(Defense):
    """Share each entry's sign, scaled to the tensor's mean magnitude (Karimireddy et al., ICML 2019)."""

    scale: float = 1.0

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: self.scale * u.sign() * u.abs().mean() for name, u in update.items()}
'''


@pytest.fixture
def grid_file(tmp_path):
    """The path of the small grid."""
    path = tmp_path / "small.toml"
    path.write_text(GRID)
    return path


@pytest.fixture
def plugin_file(tmp_path):
    """The path of a plugin with one defense, named after the file."""
    path = tmp_path / "my_defense.py"
    path.write_text(PLUGIN)
    return path
