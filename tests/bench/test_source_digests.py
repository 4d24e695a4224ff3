"""A stored result goes stale when the code behind it does something else, and for no other reason."""

import re
import shutil
from pathlib import Path

import pytest

from bench import source_digests
from bench.source_digests import closure, digests

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "tests" / "plugins"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the wings and the public face that a test may change; its digests are taken of what lies there."""
    for wing in source_digests.WINGS:
        shutil.copytree(ROOT / wing, tmp_path / "m" / wing, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "leakboard.py", tmp_path / "m")
    monkeypatch.setattr(source_digests, "CODE_ROOT", tmp_path / "m")
    return tmp_path / "m"


def found(*path):
    """The digest of the built-in method or plugin at this path."""
    return digests(closure(Path(*path)))


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def file_of(folder, name):
    [path] = folder.rglob(name)
    return path


ATTACK = "inverting_gradients.py"


def test_prose_changes_nothing(copy):
    attack, engine = file_of(copy / "attacks", ATTACK), file_of(copy / "attacks", "descent.py")
    before = found(attack)
    for path in (attack, engine):
        text = path.read_text()
        text = re.sub(r'^"""', '"""Newly worded. ', text, count=1)  # The docstring of the module,
        text = re.sub(r'(?m)^(    """)(?=\w)', r"\1Newly worded. ", text)  # of every function and field,
        text = re.sub(r"(?m)^(def|class|@)", r"# A comment.\n\n\1", text)  # and lines moved about by comments.
        path.write_text(text)
        assert "Newly worded" in text
        assert "A comment" in text
    assert found(attack) == before


def test_one_changed_operator_changes_the_digest(copy):
    attack, priors = file_of(copy / "attacks", ATTACK), file_of(copy / "attacks", "priors.py")
    before = found(attack)
    edit(priors, "1:] - images[..., :, :-1]", "1:] + images[..., :, :-1]")
    assert found(attack) != before


@pytest.mark.parametrize("place", ["elsewhere", "renamed"])
def test_a_moved_or_renamed_file_changes_nothing(copy, place):
    attack = file_of(copy / "attacks", ATTACK)
    before = found(attack)
    path = file_of(copy / "attacks", "priors.py")
    old = ".".join(path.relative_to(copy).with_suffix("").parts)
    new = {"elsewhere": "attacks.some.where.priors", "renamed": f"{old}_of_images"}[place]
    target = copy / (new.replace(".", "/") + ".py")
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    for other in copy.rglob("*.py"):
        other.write_text(re.sub(rf"\b{re.escape(old)}\b", new, other.read_text()))
    assert found(attack) == before


def test_two_merged_files_change_nothing(copy):
    """`inverting_gradients` takes a prior from one file; that file then also stands in the other's."""
    attack = file_of(copy / "attacks", ATTACK)
    before = found(attack)
    labels, threat = file_of(copy / "attacks", "labels.py"), file_of(copy / "attacks", "threat.py")
    threat_module, labels_module = (".".join(p.relative_to(copy).with_suffix("").parts) for p in (threat, labels))
    body = threat.read_text().partition("from __future__ import annotations\n")[2]
    labels.write_text(labels.read_text() + body)
    threat.unlink()
    for other in copy.rglob("*.py"):
        other.write_text(re.sub(rf"\b{re.escape(threat_module)}\b", labels_module, other.read_text()))
    assert found(attack) == before


def test_a_shared_room_counts_whole_and_a_catalogue_file_by_file():
    files = closure(file_of(ROOT / "attacks", ATTACK))
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in files}
    assert {"attacks", "attacks/engine", "attacks/matching", "defenses"} <= rooms
    for room in rooms - {"attacks/optimisation"}:
        assert {path for path in (ROOT / room).glob("*.py") if path.name != "__init__.py"} <= files
    assert [path.name for path in files if path.parent.name == "optimisation"] == [ATTACK]
    assert not any(path.parent.name == "engine" for path in closure(file_of(ROOT / "attacks", "grey_image.py")))


def test_a_definition_that_moves_within_a_shared_room_changes_nothing(copy):
    attack = file_of(copy / "attacks", ATTACK)
    before = found(attack)
    lanes, descent = (file_of(copy / "attacks" / "engine", name) for name in ("lanes.py", "descent.py"))
    function = "\n\n\ndef unused_step(x):\n    return x + 1\n"
    lanes.write_text(lanes.read_text() + function)
    changed = found(attack)
    assert changed != before
    lanes.write_text(lanes.read_text().removesuffix(function))
    descent.write_text(descent.read_text() + function)
    assert found(attack) == changed


def test_a_new_method_changes_no_other(copy):
    attack = file_of(copy / "attacks", ATTACK)
    before = found(attack)
    (attack.parent / "another.py").write_text(attack.read_text().replace("class Inverting", "class Another"))
    assert found(attack) == before


def test_an_import_of_another_definition_under_the_same_name_is_noticed(tmp_path, monkeypatch):
    """The import lines themselves are not digested: what a name stands for is."""
    monkeypatch.setattr(source_digests, "CODE_ROOT", tmp_path)
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "one.py").write_text("def distance(a, b):\n    return a - b\n")
    (tmp_path / "attacks" / "two.py").write_text("def distance(a, b):\n    return abs(a - b)\n")
    both = "from attacks.one import distance as first\nfrom attacks.two import distance as second\n"
    results = []
    for used in ("first", "second"):
        (tmp_path / "attacks" / "method.py").write_text(f"{both}def attack(a, b):\n    return {used}(a, b)\n")
        results.append(found(tmp_path / "attacks" / "method.py"))
    for module in ("numpy", "math"):
        (tmp_path / "attacks" / "method.py").write_text(
            f"from {module} import exp\ndef attack(a):\n    return exp(a)\n"
        )
        results.append(found(tmp_path / "attacks" / "method.py"))
    assert len({tuple(result) for result in results}) == 4


def test_a_name_that_a_function_binds_itself_stands_for_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(source_digests, "CODE_ROOT", tmp_path)
    (tmp_path / "attacks").mkdir()
    method = tmp_path / "attacks" / "method.py"
    method.write_text("def attack(step):\n    return step + 1\n")
    [before] = found(method)
    method.write_text("def attack(step):\n    return step + 1\n\n\ndef step(x):\n    return x\n")
    assert before in found(method)


def test_what_a_plugin_takes_from_the_public_face_belongs_to_it(copy):
    attack, defense = PLUGINS / "absolute_matching.py", PLUGINS / "sign_compression.py"
    before = found(attack), found(defense)
    problem = next(path for path in (copy / "attacks").rglob("*.py") if "class MatchingProblem" in path.read_text())
    problem.write_text(problem.read_text() + "\n\nMORE = 1\n")
    after = found(attack), found(defense)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_every_name_of_the_public_face_leads_to_its_file_or_is_an_alias():
    import leakboard

    aliases = {"Distance", "Generator", "Lanes", "Params", "Tensor", "Update"}
    for name, home in leakboard._HOMES.items():
        assert home in source_digests._homes("leakboard", name) or name in aliases, name


def test_a_digest_does_not_depend_on_where_a_plugin_lies(tmp_path):
    results = set()
    for folder in ("a", "z"):
        (tmp_path / folder).mkdir()
        results.add(tuple(found(shutil.copy(PLUGINS / "mix_up.py", tmp_path / folder))))
    assert len(results) == 1
