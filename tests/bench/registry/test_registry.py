import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from bench.errors import ConfigurationError
from bench.registry.registry import Registry, UnknownName
from bench.registry.signatures import parameters_of
from bench.registry.specs import MethodSpec
from leaderboards.cli.grids import KINDS, listing, render_listing
from leaderboards.cli.report import terminal

SIGNS = '''
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from leakboard import Defense, Generator, Task, Update

@dataclass(frozen=True)
class SignCompression(Defense):
    """Share signs.

    More words.
    """

    scale: float = 1
    steps: int = 2
    rule: Literal["mean", "max"] = "mean"
    widths: tuple[int, ...] = (1, 2)
    on: bool = False

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u.sign() * self.scale for name, u in update.items()}
'''
SECOND = """
@dataclass(frozen=True)
class DPNoise2(Defense):
    std: float
    def transform(self, task, update, rng): return update
"""


@pytest.fixture
def plugin(tmp_path: Path):
    def write(text: str, name: str = "my_defense.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def signs(plugin) -> Registry:
    return Registry([plugin(SIGNS)])


def test_listing_built_ins_imports_no_torch():
    code = """
import sys
from leaderboards.cli.grids import KINDS, listing, render_listing
from bench.registry.registry import Registry
for kind in KINDS:
    print(render_listing(listing(kind, Registry())))
assert not {"torch", "opacus", "torchmetrics", "seaborn", "pandas"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gradient_pruning" in done.stdout


def test_built_ins_are_the_files_with_one_public_method():
    names = {entry.name: entry for entry in Registry().descriptions("defense")}
    assert {"none", "dp_sgd", "gradient_pruning"} <= names.keys()
    assert not {"client", "chain", "schedule", "__init__"} & names.keys()
    assert "attack" not in {entry.name for entry in Registry().descriptions("attack")}
    assert [p.name for p in names["dp_sgd"].parameters] == ["clip_norm", "noise_multiplier"]


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_what_the_source_says_of_a_built_in_is_what_its_class_takes(kind: str):
    registry = Registry()
    for entry in registry.descriptions(kind):
        said = [(p.name, p.default, p.required) for p in entry.parameters]
        taken = parameters_of(registry.cls(kind, entry.name))
        assert said == [(p.name, p.default, p.required) for p in taken]
        assert registry.sources(kind, entry.name).name == f"{entry.name}.py"


def test_a_plugin_file_with_one_method_is_called_by_its_stem(signs: Registry):
    [entry] = [e for e in signs.descriptions("defense") if e.origin.startswith("file")]
    assert (entry.name, entry.summary, entry.broken) == ("my_defense", "Share signs.", "")
    assert signs.cls("defense", "my_defense").__module__ == "leakboard_plugin_my_defense"
    assert signs.sources("defense", "my_defense").name == "my_defense.py"
    assert "leakboard_plugin_my_defense" in sys.modules


def test_a_plugin_file_with_several_methods_names_them_by_class(plugin):
    registry = Registry([plugin(SIGNS + SECOND)])
    names = {e.name for e in registry.descriptions("defense") if e.origin.startswith("file")}
    assert names == {"sign_compression", "dp_noise2"}


def test_defaults_are_filled_in_and_numbers_take_their_type(signs: Registry):
    spec = signs.resolve("defense", MethodSpec.of("my_defense", {"scale": 2, "widths": [3, 4]}))
    assert spec.label == "my_defense(scale=2.0, widths=[3, 4])"
    assert spec.canonical["parameters"] == {
        "on": False,
        "rule": "mean",
        "scale": 2.0,
        "steps": 2,
        "widths": [3, 4],
    }
    assert signs.resolve("defense", spec) == spec
    assert signs.build("defense", spec).widths == (3, 4)
    same = signs.resolve("defense", MethodSpec.of("my_defense", {"scale": 1}))
    assert same.canonical == signs.resolve("defense", MethodSpec("my_defense")).canonical
    assert same.label == "my_defense"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": "a"}, "defense my_defense: scale must be float, got 'a'"),
        ({"scale": True}, "defense my_defense: scale must be float, got True"),
        ({"steps": True}, "defense my_defense: steps must be int, got True"),
        ({"steps": 1.0}, "defense my_defense: steps must be int, got 1.0"),
        ({"on": 1}, "defense my_defense: on must be bool, got 1"),
        ({"rule": "min"}, "defense my_defense: rule must be one of 'mean', 'max', got 'min'"),
        ({"widths": [1.5]}, "defense my_defense: widths must be tuple[int, ...], got [1.5]"),
        ({"scale": -1}, "defense my_defense: scale must be positive, got -1.0"),
        ({"scal": 1}, "defense my_defense: unknown parameter 'scal'; did you mean 'scale'?"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(signs: Registry, parameters: dict, message: str):
    with pytest.raises(ConfigurationError) as caught:
        signs.resolve("defense", MethodSpec.of("my_defense", parameters))
    assert str(caught.value).startswith(message)


def test_a_missing_parameter_is_asked_for(plugin):
    with pytest.raises(ConfigurationError, match=r"defense dp_noise2: std is required \(float\)"):
        Registry([plugin(SIGNS + SECOND)]).resolve("defense", MethodSpec("dp_noise2"))


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownName, match="unknown defense 'gradient_prunning'; did you mean 'gradient_pruning'"):
        Registry().cls("defense", "gradient_prunning")


def test_a_grid_expands_axes_in_order_and_drops_duplicates(signs: Registry):
    values = ["none", {"name": "my_defense", "scale": [2, 1], "widths": [5, 6]}, "my_defense(widths=[5, 6])"]
    labels = [" | ".join(part.label for part in chain) for chain in signs.expand("defense", values)]
    assert labels == ["none", "my_defense(scale=2.0, widths=[5, 6])", "my_defense(widths=[5, 6])"]


def test_a_chain_is_expanded_and_its_order_checked(signs: Registry):
    chains = signs.expand("defense", ["larger_batch(examples=[2, 4]) | my_defense"])
    assert [chain[0].parameters["examples"] for chain in chains] == [2, 4]
    with pytest.raises(ConfigurationError, match=r"\[0\]: my_defense \| larger_batch: a chain is schedules"):
        signs.expand("defense", ["my_defense | larger_batch(examples=2)"])
    with pytest.raises(ConfigurationError, match="attacks cannot be chained"):
        signs.expand("attack", ["grey_image | grey_image"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "from leakboard import Defense\nclass Mine(Defense):\n    share = None\nx = 1 / 0\n",
            "ZeroDivisionError: division by zero",
        ),
        ("from leakboard import Defense\nclass Mine(Defense):\n    pass\n", "TypeError: defense Mine implements none"),
        ("def f(:\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("from leakboard import Nothing\n", "ImportError: "),
        (SIGNS.replace("@dataclass(frozen=True)", ""), "class SignCompression has parameters but lacks @dataclass"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_stops_only_its_own_run(plugin, text: str, reason: str):
    path = plugin(text)
    registry = Registry([path])
    [entry] = [e for e in registry.descriptions("defense") if e.origin.startswith("file")]
    assert (entry.name, entry.broken.startswith(reason)) == ("my_defense", True), entry
    assert "lacks @dataclass" in reason or f"{path}:" in entry.broken
    assert registry.resolve("defense", MethodSpec("none")).label == "none"
    with pytest.raises(ConfigurationError, match=r"defense my_defense from file .* is broken: "):
        registry.cls("defense", "my_defense")
    assert "BROKEN" in render_listing(listing("defenses", registry))


def test_a_plugin_file_without_a_method_or_that_is_not_there_is_refused(plugin, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="defines no attack or defense"):
        Registry([plugin("from leakboard import Defense\n")]).descriptions("defense")
    with pytest.raises(ConfigurationError, match=r"nowhere\.py does not exist"):
        Registry([tmp_path / "nowhere.py"])


def test_a_name_taken_twice_is_an_error_that_names_both(plugin):
    path = plugin(SIGNS, "dp_sgd.py")
    with pytest.raises(ConfigurationError, match=f"defense dp_sgd is defined twice: built-in and file {path}"):
        Registry([path]).descriptions("defense")
    Registry([path]).descriptions("attack")


def test_a_default_that_does_not_fit_its_type_is_the_plugins_fault(plugin):
    registry = Registry([plugin(SIGNS.replace("scale: float = 1", "scale: float = None"))])
    with pytest.raises(ConfigurationError, match="the default of scale must be float, got None"):
        registry.resolve("defense", MethodSpec("my_defense"))


def test_installed_packages_are_listed_from_metadata_and_verified_in_a_child(tmp_path: Path, monkeypatch):
    info = tmp_path / "leaky_pack-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky-pack\nVersion: 2.0\n")
    points = "packed = leaky_pack:SignCompression\nsick = leaky_sick:X\nodd = leaky_pack:Literal\n"
    (info / "entry_points.txt").write_text(f"[leakboard.defenses]\n{points}")
    (tmp_path / "leaky_pack.py").write_text(SIGNS)
    (tmp_path / "leaky_sick.py").write_text("print('noise')\nimport os\nos._exit(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry()
    plain = {e.name: e for e in registry.descriptions("defense")}
    assert plain["packed"].origin == "package leaky-pack 2.0 (leaky_pack:SignCompression)"
    assert "leaky_pack" not in sys.modules
    sure = {e.name: e for e in registry.descriptions("defense", verify=True)}
    assert (sure["packed"].summary, sure["packed"].broken) == ("Share signs.", "")
    assert sure["packed"].parameters[0].name == "scale"
    assert sure["sick"].broken == "its import ended with code 7"
    assert "no class derived from leakboard.Defense" in sure["odd"].broken
    assert registry.resolve("defense", MethodSpec("packed")).label == "packed"
    assert registry.sources("defense", "packed") == tmp_path / "leaky_pack.py"


def test_an_unknown_kind_of_listing_gets_a_suggestion():
    with pytest.raises(ConfigurationError, match="did you mean 'defenses'"):
        listing("defences", Registry())
    assert {row["name"] for row in listing("presets", Registry())} >= {"quick", "paper-lenet"}
    assert set(KINDS) == {"attacks", "defenses", "datasets", "models", "presets"}


def test_a_listing_is_whole_in_a_pipe_and_fits_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal() is None
    rows = listing("attacks", Registry())
    plain = render_listing(rows)
    assert "\x1b" not in plain
    for row in rows:
        assert f"{row['name']} " in plain
        assert f"  {row['summary']}" in plain
    shown = render_listing(rows, Console(file=io.StringIO(), width=70, force_terminal=True))
    lines = Text.from_ansi(shown).plain.splitlines()
    assert max(map(len, lines)) <= 70
    assert Counter("".join(Text.from_ansi(shown).plain.split())) == Counter("".join(plain.split()))
