"""Every link of a document leads to a file and its heading; what is shown in Python runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_its_heading(page):
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, heading = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if "://" in target:
            continue
        assert file.exists(), f"{page}: {target}"
        if heading:
            there = file.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.*)$", there, re.MULTILINE)
            places = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in [*places, *re.findall(r'<a id="([^"]+)"', there)], target


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/glossary.md"])
def test_every_file_and_folder_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?:attacks|bench|defenses|docs|leaderboards|tests|tools)/[\w./-]*", text)
    assert named
    assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


def test_the_glossary_says_one_sentence_of_each_word_and_no_word_twice():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w -]+) \| (.+) \| `[\w/]+` \|$", text, re.MULTILINE)
    words = [word for word, _ in rows]
    assert len(words) == len(set(words)) == text.count("\n| ") - text.count("\n| word |")
    assert [word for word, meaning in rows if not re.fullmatch(r"[^.]+\.(json\W[^.]+\.)?", meaning)] == []


def test_the_quickstart_s_python_continues_a_run(grid_of_the_tests):
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    [text] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    call = [sys.executable, "-c", text.replace('"quick"', '"quick.toml"')]
    path = {
        "PYTHONPATH": ":".join([str(ROOT), *filter(None, sys.path)]),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(call, cwd=grid_of_the_tests, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "linear_layer" in done.stdout


@pytest.fixture
def grid_of_the_tests(tmp_path):
    """A folder with the small grid of the tests as quick.toml."""
    shutil.copy(ROOT / "tests" / "small.toml", tmp_path / "quick.toml")
    return tmp_path
