from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.grid.config import Config, from_toml, load_config, to_toml
from bench.grid.reading import presets
from bench.registry.registry import Registry

GRID = """
[grid]
dataset = "photos"
models = ["mlp(hidden=[8, 4])", { name = "resnet20", width = [16, 32] }, "resnet32-10(norm='group')"]
weights = ["untrained", 20, { epochs = 5, dataset = "cifar10-jpeg", root = "x" }, "runs/w.safetensors"]
images = 4
seeds = [0, 7]
attacks = ["linear_layer", { name = "inverting_gradients", iterations = [10, 20] }]
defenses = ["none", "norm_clipping(clip_norm=1.0) | gaussian_noise(std=0.01)", "local_epochs(epochs=2)"]
threat = { labels = ["known", "joint"], schedule_known = [true, false], batch_norm = ["running", "batch"] }
client = { images = 2 }

[engine]
chunk = 16
timeout = 60

[expect]
attack = "linear_layer"
gain_db = 3
"""


@pytest.fixture
def grid(tmp_path: Path):
    def write(text: str = GRID) -> str:
        path = tmp_path / "my-grid.toml"
        path.write_text(text)
        return str(path)

    return write


def test_a_whole_grid_is_read_with_its_axes(grid):
    config = load_config(grid())
    assert config.name == "my-grid"
    assert [m.label for m in config.grid.models] == [
        "mlp(hidden=[8, 4])",
        "resnet20(width=16)",
        "resnet20(width=32)",
        "resnet32-10(norm='group')",
    ]
    labels = ["untrained", "epochs=20", "epochs=5 on cifar10-jpeg", "runs/w.safetensors"]
    assert [w.label for w in config.grid.weights] == labels
    assert [a.parameters.get("iterations") for a in config.grid.attacks][1:] == [10, 20]
    assert [len(chain) for chain in config.grid.defenses] == [1, 2, 1]
    assert [(t.labels, t.schedule_known) for t in config.threats[::2]] == [
        ("known", True),
        ("known", False),
        ("joint", True),
        ("joint", False),
    ]
    assert [t.batch_norm for t in config.threats[:3]] == ["running", "batch", "running"]
    assert config.grid.client.schedule.images == 2
    assert (config.engine.chunk, config.engine.timeout, config.engine.device) == (16, 60.0, "auto")


def test_run_toml_gives_an_equal_config_back(grid):
    config = load_config(grid())
    again = from_toml(to_toml(config))
    assert again == config
    assert [a.label for a in again.grid.attacks] == [a.label for a in config.grid.attacks]
    assert to_toml(again) == to_toml(config)


@pytest.mark.parametrize("preset", sorted(presets()))
def test_a_preset_loads_and_survives_its_own_toml(preset: str):
    config = load_config(preset)
    assert config.name == preset
    assert from_toml(to_toml(config)) == config
    assert "root" not in to_toml(config), "a preset holds no path of a machine"


@pytest.mark.parametrize("claim", ["table1", "fedavg", "batch", "architecture", "imagenet"])
def test_every_claim_of_the_paper_has_a_preset_for_a_gpu_and_a_small_one(claim: str):
    whole, small = load_config(f"paper-{claim}"), load_config(f"paper-{claim}-small")
    assert small.grid.images * small.grid.attacks[0].parameters["iterations"] < (
        whole.grid.images * whole.grid.attacks[0].parameters["iterations"]
    )


def test_overrides_are_toml_else_strings(grid):
    config = load_config(
        grid(),
        [
            'grid.defenses=["none"]',
            "grid.models=lenet-zhu",
            "grid.threat.labels=recovered",
            "grid.dataset.size=32",
            "engine.device=cpu",
            "grid.images = 9",
        ],
    )
    assert [chain[0].label for chain in config.grid.defenses] == ["none"]
    assert [m.name for m in config.grid.models] == ["lenet-zhu"]
    assert config.grid.threat.labels == ("recovered",)
    assert (config.grid.dataset.name, config.grid.dataset.size) == ("photos", 32)
    assert (config.engine.device, config.grid.images) == ("cpu", 9)


def stated(*reviews: tuple[str, str, str]) -> list[str]:
    """The override that states who has read which defense, and what it does."""
    tables = (f'{{defense="{name}", read_by="{by}", read="{what}"}}' for name, by, what in reviews)
    return [f"reviews=[{', '.join(tables)}]"]


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ([("dp_sdg", "Ada", "Noise.")], r"reviews\[0\]\.defense: unknown defense 'dp_sdg'.*did you mean 'dp_sgd'\?"),
        (
            [("dp_sgd(noise_multiplier=1.0)", "Ada", "Noise.")],
            r"unknown defense 'dp_sgd\(.*, a name without parameters",
        ),
        ([(" ", "Ada", "Noise.")], r"reviews\[0\]\.defense: String should have at least 1"),
        ([("dp_sgd", " ", "Noise.")], r"reviews\[0\]\.read_by: String should have at least 1"),
        ([("dp_sgd", "Ada", " ")], r"reviews\[0\]\.read: String should have at least 1"),
        ([("dp_sgd", "Ada", "n" * 201)], r"reviews\[0\]\.read: String should have at most 200"),
        (
            [("dp_sgd", "Ada", "Noise."), ("dp_sgd ", "Bob", "Clips.")],
            r"reviews\[1\]\.defense: 'dp_sgd' is there twice",
        ),
    ],
)
def test_a_statement_about_code_names_a_known_defense_once_and_says_something(grid, reviews, message):
    with pytest.raises(ConfigurationError, match=message):
        load_config(grid(), stated(*reviews))


def test_a_statement_about_code_is_kept_without_the_spaces_around_it(grid):
    [own] = load_config(grid(), stated((" dp_sgd", "Ada ", f" {'n' * 200} "))).reviews
    assert (own.defense, own.read_by, own.read) == ("dp_sgd", "Ada", "n" * 200)


def test_a_plugin_file_joins_the_grid(grid, tmp_path: Path):
    plugin = tmp_path / "my_defense.py"
    plugin.write_text(
        "from leakboard import Defense\n"
        "class Mine(Defense):\n"
        "    def transform(self, task, update, rng):\n"
        "        return update\n"
    )
    overrides = ['grid.defenses=["none","my_defense"]']
    config = load_config(grid(), overrides, Registry([plugin]))
    assert [chain[0].name for chain in config.grid.defenses] == ["none", "my_defense"]
    assert from_toml(to_toml(config), Registry([plugin])) == config
    with pytest.raises(ConfigurationError, match="unknown defense 'my_defense'"):
        load_config(grid(), overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.images=0", "my-grid.toml: grid.images must be at least 1, got 0"),
        ("grid.images=true", "my-grid.toml: grid.images: must be a valid integer, got True"),
        ("grid.images=2.0", "my-grid.toml: grid.images: must be a valid integer, got 2.0"),
        ("grid.seeds=[0, -1]", "my-grid.toml: grid.seeds[1] must be at least 0, got -1"),
        ("grid.seeds=[0, 3, 0]", "my-grid.toml: grid.seeds has duplicates: [0, 3, 0]"),
        ("grid.seeds=[]", "my-grid.toml: grid.seeds is empty"),
        ("grid.seeds=3", "my-grid.toml: grid.seeds must be a list, got 3; write [3]"),
        ("grid.attacks=[]", "my-grid.toml: grid.attacks is empty"),
        ("grid.models=[]", "my-grid.toml: grid.models is empty"),
        ("grid.dataset=photo", "my-grid.toml: grid.dataset: unknown dataset 'photo'; did you mean 'photos'?"),
        ("grid.dataset.root=x", "my-grid.toml: grid.dataset: dataset photos has no parameter 'root'"),
        ("grid.weights=[{epochs=1, dataset='x'}]", "my-grid.toml: grid.weights[0]: unknown dataset 'x'"),
        ("grid.weights=[{root='x'}]", "my-grid.toml: grid.weights[0] root, download and size need a dataset"),
        ("grid.models=mlp(width=3)", "my-grid.toml: grid.models[0]: model mlp has no parameter 'width'"),
        ("grid.models=[3]", "my-grid.toml: grid.models[0]: a method is"),
        ("grid.attacks=[3]", "my-grid.toml: grid.attacks[0]: a method is"),
        ("grid.defenses=nonne", "my-grid.toml: grid.defenses[0]: unknown defense 'nonne'; did you mean 'none'?"),
        (
            "grid.defenses=gradient_pruning(ratio='a')",
            "my-grid.toml: grid.defenses[0]: defense gradient_pruning: ratio must be float, got 'a'",
        ),
        ("grid.weights=untraind", "my-grid.toml: grid.weights[0] must be 'untrained', a number of epochs or"),
        ("grid.weights=0", "my-grid.toml: grid.weights[0].epochs must be at least 1, got 0"),
        ("grid.threat.labels=knwn", "my-grid.toml: grid.threat.labels[0] must be 'known', 'recovered' or 'joint'"),
        (
            "grid.threat.batch_norm=client",
            "my-grid.toml: grid.threat.batch_norm[0] must be 'running', 'batch' or 'unknown', got 'client'",
        ),
        (
            "grid.threat.defense_known=yes",
            "my-grid.toml: grid.threat.defense_known[0]: must be a valid boolean, got 'yes'",
        ),
        ("grid.threat=known", "my-grid.toml: grid.threat must be a table, got 'known'"),
        ("grid.client.learning_rate=0", "my-grid.toml: grid.client.learning_rate must be more than 0, got 0"),
        ("engine.device=gpu", "my-grid.toml: engine.device must be 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ("expect.attack=linear_later", "my-grid.toml: expect.attack: unknown attack 'linear_later'; did you mean"),
        ("name=../x", "my-grid.toml: name must be letters"),
        ("grid.attack=[]", "--set grid.attack: unknown key; did you mean 'grid.attacks'?"),
        ("images=3", "--set images: unknown key; did you mean 'grid.images'?"),
        ("grid.seeds.x=1", "--set grid.seeds.x: unknown key"),
        ("grid.images", "--set 'grid.images' is not KEY=VALUE"),
        ("grid.defenses=[none]", "--set grid.defenses: [none] is not valid TOML"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(grid, override: str, message: str):
    with pytest.raises(ConfigurationError) as caught:
        load_config(grid(), [override])
    assert str(caught.value).replace(str(Path(grid()).parent) + "/", "").startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds =", "sedes =", "unknown key grid.sedes; did you mean 'grid.seeds'?"),
        ("attacks =", "attack =", "unknown key grid.attack; did you mean 'grid.attacks'?"),
        ("[engine]", "[engin]", "unknown key engin; did you mean 'engine'?"),
        ('dataset = "photos"', 'dataset = { name = "photos", rot = 1 }', "unknown key grid.dataset.rot; did you"),
        ("epochs = 5", "epoch = 5", "unknown key grid.weights[2].epoch"),
        ("[grid]\ndataset", "dataset = 'x'\n[grid]\ndataset", "unknown key dataset; did you mean 'grid.dataset'?"),
        ("images = 4", "", "grid.images is missing"),
        ("images = 4", "images = ", "is not valid TOML: Invalid value (at line 6, column 10)"),
    ],
)
def test_a_mistake_in_the_file_names_the_key_and_the_file(grid, old: str, new: str, message: str):
    assert old in GRID
    path = grid(GRID.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    assert str(caught.value).startswith(path)
    assert message in str(caught.value).splitlines()[0]


def test_a_spec_that_is_neither_preset_nor_file_gets_a_suggestion(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="'quik' is neither a preset nor a file; did you mean 'quick'"):
        load_config("quik")
    with pytest.raises(ConfigurationError, match="is a folder"):
        load_config(str(tmp_path))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read as text"):
        load_config(str(tmp_path / "bytes.toml"))


def test_a_config_can_be_made_of_plain_python_values():
    grid = {"dataset": "digits", "models": "mlp", "images": 1, "attacks": "linear_layer", "defenses": "none"}
    config = Config.model_validate({"name": "mine", "grid": grid})
    assert config.grid.seeds == (0,)
    assert [w.label for w in config.grid.weights] == ["untrained"]
    assert Config.model_validate(config.resolved()) == config
