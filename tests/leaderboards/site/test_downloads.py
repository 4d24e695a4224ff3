"""Downloads: figures that other programs read, and BibTeX that stays BibTeX whatever a submitter is called."""

import io
import re

import pandas as pd
import pytest
from made_entries import board_of, make_published

from leaderboards.entries.published import published
from leaderboards.site.board_page import board_view
from leaderboards.site.downloads import downloads, escaped
from leaderboards.site.results import results

HOSTILE = "=cmd|'/C calc'!A0 }} } \\input{x} @misc{y, % # $ & ~ ^ _ \""


def made(folder, say):
    with board_of(folder / "boards"):
        make_published(folder / "published", say)
        return downloads(board_view(results(published("made-up", folder / "published"))))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made(tmp_path_factory.mktemp("plain"), lambda text: text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return made(tmp_path_factory.mktemp("hostile"), lambda text: HOSTILE + text)


def test_csv_and_parquet_hold_the_same_figures_of_every_defense(plain):
    csv = pd.read_csv(io.BytesIO(plain["downloads/made-up.csv"]), keep_default_na=False, na_values=[""])
    parquet = pd.read_parquet(io.BytesIO(plain["downloads/made-up.parquet"]))
    assert list(csv.columns) == list(parquet.columns)
    assert list(csv["defense"]) == list(parquet["defense"])
    assert len(csv) == 6
    assert csv["ssim"].between(-0.1, 1).all()
    assert csv["psnr_db"].between(10, 25).all()
    # Six attacks of 1.5 s, of which one has failed on one defense.
    assert sorted(csv["attack_seconds"]) == [7.5] + [9.0] * 5
    assert csv["ssim_gain"].to_numpy(float) == pytest.approx(parquet["ssim_gain"].to_numpy(float), nan_ok=True)
    assert set(csv["state"]) == {"re-run", "self-reported", "artefact-checked"}
    assert csv.loc[csv["state"] != "re-run", "rank"].isna().all()


def test_no_text_is_a_formula_of_a_spreadsheet(hostile):
    frame = pd.read_csv(io.BytesIO(hostile["downloads/made-up.csv"]), dtype=str, keep_default_na=False)
    texts = frame[["defense", "model", "dataset"]].to_numpy().ravel()
    assert any("calc" in text for text in texts)
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]


def test_bibtex_parses_whatever_a_submitter_is_called(hostile, plain):
    for files in (hostile, plain):
        entries = parse(files["downloads/made-up.bib"].decode())
        names = ["leakboard-made-up", *(f"leakboard-made-up-{name}" for name in ("none", "chain", "noise", "zeros"))]
        assert [key for key, _ in entries] == names
        assert all({"author", "title", "howpublished", "note"} <= fields.keys() for _, fields in entries)
        [(key, fields)] = parse(files["downloads/noise.entry.bib"].decode())
        assert key == "leakboard-made-up-noise"
        assert fields["url"] == "https://example.org/someone/noise"


def test_tex_is_escaped_letter_by_letter():
    assert escaped("a_b{c}\\d%\n\ne") == r"a\_b$\lbrace$c$\rbrace$\textbackslash{}d\% e"


def test_a_latex_table_has_as_many_columns_in_every_row(hostile):
    text = hostile["downloads/made-up.tex"].decode()
    body = text.partition("\\midrule")[2].partition("\\bottomrule")[0].strip().splitlines()
    assert len(body) == 6
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {10}
    assert all(line.endswith(r" \\") for line in body)


def parse(text):
    """Entries of a BibTeX file: key and fields; every brace counts, as in BibTeX itself."""
    found, position = [], 0
    while (start := text.find("@", position)) >= 0:
        head = re.compile(r"@misc\{([a-z0-9-]+),\n").match(text, start)
        assert head, text[start : start + 80]
        end = closing(text, text.index("{", start))
        found.append((head[1], fields_of(text[head.end() : end])))
        assert not text[end + 1 :].split("@")[0].strip()
        position = end + 1
    return found


def fields_of(text):
    fields, position = {}, 0
    while match := re.compile(r"\s*(\w+) = (?=\{)").match(text, position):
        end = closing(text, match.end())
        fields[match[1]] = text[match.end() + 1 : end]
        assert text[end + 1] == ","
        position = end + 2
    assert not text[position:].strip()
    return fields


def closing(text, start):
    """Where the brace that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise AssertionError("a brace stays open")
