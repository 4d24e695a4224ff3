"""Boards: complete, frozen while something is published under them, and run exactly as they are."""

import pytest

from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.grid.config import load_config
from leaderboards.entries.board import BOARDS, all_boards, boards, grid_source, load_board
from leaderboards.entries.published import PUBLISHED, published

NAMES = [one.name for one in all_boards()]


@pytest.mark.parametrize("name", NAMES)
def test_a_board_requires_every_attack_of_its_grid_by_its_label(name):
    config = load_config(grid_source(f"board:{name}"), defenses=["none"])
    assert config.board is not None
    assert config.board.required == tuple(attack.label for attack in config.grid.attacks)
    assert config.board == load_board(name).rules
    assert config.name == name
    assert {"label_rule", "linear_layer"} <= {attack.name for attack in config.grid.attacks}
    assert {threat.defense_known for threat in config.threats} == {False, True}


@pytest.mark.parametrize("name", NAMES)
def test_a_board_s_file_says_in_a_comment_and_in_a_sentence_what_it_is(name):
    one = load_board(name)
    assert one.text.startswith("# ")
    assert one.rules.summary.endswith(".")
    assert one.rule.minimum_images == one.rules.minimum_images


@pytest.mark.parametrize("name", NAMES)
def test_a_board_of_the_first_rules_says_that_its_attacks_hold_no_public_images(name):
    own = load_board(name)
    assert own.rules.rules == 1
    assert "hold no public images" in own.notice
    assert own.rule.notice == own.notice


def test_a_board_whose_attacks_hold_public_images_needs_no_such_notice(tmp_path, monkeypatch):
    text = load_board("cifar10-samples-v1").text
    for name, granted in (("one", "true"), ("both", "[false, true]"), ("neither", "[false]")):
        (tmp_path / f"{name}.toml").write_text(text.replace("threat = {", f"threat = {{ public = {granted},"))
    monkeypatch.setenv(BOARDS, str(tmp_path))
    assert {name: bool(load_board(name).notice) for name in ("one", "both", "neither")} == {
        "one": False, "both": False, "neither": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_board_with_entries_is_frozen(name):
    for entry in published(name, PUBLISHED).entries:
        assert entry.manifest.board_sha256 == load_board(name).digest, f"make {name}'s next version instead"


def test_a_board_adds_the_undefended_client_and_more_attacks_to_what_is_asked():
    config, _, _, plan = prepare(
        grid_source("board:cifar10-samples-v1"),
        defenses=["gradient_pruning(ratio=[0.5, 0.9])"],
        attacks=["euclidean_adam(iterations=3)"],
    )
    assert list(dict.fromkeys(cell.defense[0].label for cell in plan.cells)) == [
        "none",
        "gradient_pruning(ratio=0.5)",
        "gradient_pruning(ratio=0.9)",
    ]
    assert [attack.name for attack in config.grid.attacks][-1] == "euclidean_adam"


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("board:cifar10-samples-v1", {}, "needs a defense: add --defense NAME"),
        ("board:cifar10-sample-v1", {"defenses": ["zeros"]}, "unknown board .*did you mean 'cifar10-samples-v1'"),
        ("cifar10-samples-v1", {"defenses": ["zeros"]}, "is a board: write board:cifar10-samples-v1"),
        (
            "board:cifar10-samples-v1",
            {"defenses": ["zeros"], "overrides": ["grid.images=8"]},
            "--set grid.images=8: a board is fixed, and run in float32; only engine",
        ),
        (
            "board:cifar10-samples-v1",
            {"defenses": ["zeros"], "overrides": ["board.minimum_images=8"]},
            "a board is fixed",
        ),
    ],
)
def test_a_board_is_run_as_it_is_or_not_at_all(spec, options, words):
    with pytest.raises(ConfigurationError, match=words):
        load_config(grid_source(spec), **options)


@pytest.mark.parametrize("override", ["name=mine", 'engine.precision="bfloat16"'])
def test_name_and_precision_of_a_board_s_run_stay_since_it_could_not_be_packed(override):
    with pytest.raises(ConfigurationError, match="a board is fixed"):
        load_config(grid_source("board:cifar10-samples-v1"), [override], defenses=["zeros"])
    config = load_config(grid_source("board:cifar10-samples-v1"), ["engine.threads=1"], defenses=["zeros"])
    assert (config.engine.threads, config.name) == (1, "cifar10-samples-v1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[board", "is not valid TOML"),
        (b"[grid]\nimages = 4\n", r"needs a table \[board\]"),
        (b"[board]\ntitle = 3\n[grid]\ndataset = 'digits'\nimages = 4\n", "board odd-v1: summary is missing"),
        (b"\xff", "cannot be read as text"),
    ],
)
def test_a_board_that_cannot_be_used_is_named_with_its_reason(text, words, tmp_path, monkeypatch):
    monkeypatch.setenv(BOARDS, str(tmp_path))
    (tmp_path / "odd-v1.toml").write_bytes(text)
    with pytest.raises(ConfigurationError, match=words):
        list(all_boards())
    monkeypatch.setenv(BOARDS, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigurationError, match="is no folder"):
        boards()


def test_defenses_and_attacks_join_those_of_a_preset():
    config = load_config("quick", defenses=["zeros"], attacks=["label_rule"])
    usual = load_config("quick")
    assert [c[0].name for c in config.grid.defenses] == [*(c[0].name for c in usual.grid.defenses), "zeros"]
    assert [a.name for a in config.grid.attacks] == [*(a.name for a in usual.grid.attacks), "label_rule"]


def test_a_folder_of_own_boards_joins_ours_and_takes_no_name_twice(tmp_path, monkeypatch):
    monkeypatch.setenv(BOARDS, str(tmp_path))
    (tmp_path / "house-v1.toml").write_text(load_board(NAMES[0]).text)
    assert boards().keys() == {*NAMES, "house-v1"}
    assert load_board("house-v1").digest == load_board(NAMES[0]).digest
    (tmp_path / f"{NAMES[0]}.toml").write_text("")
    with pytest.raises(ConfigurationError, match=r"there is a board .* already; rename the file"):
        boards()
