"""The site: complete, the same every time, sealed, and the same pages whatever strangers write into their texts."""

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import urlopen

import made_entries
import pytest
from made_entries import NONE, board_of, make_entry, make_published

from bench.errors import ConfigurationError
from leaderboards.cli.site import server
from leaderboards.entries.board import NO_PUBLIC_IMAGES
from leaderboards.entries.published import published
from leaderboards.site.build import MARK, write_site
from leaderboards.site.results import results
from leaderboards.untrusted.folder import Refused

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)> javascript:x &amp; {{ 7*7 }} `${x}` \\ % # ~ {"
VOID = {"meta", "link", "img", "input", "col", "wbr", "br"}
OWN_LINKS = {"https://arxiv.org/abs/2003.14053", "https://arxiv.org/abs/1906.08935"}
PLUGIN = "https://example.org/someone/noise"


class Page(HTMLParser):
    """A page's elements with their attributes, its ids and its links; fails where elements do not nest."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], path

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), attributes
        self.elements.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.links += [(tag, key, given[key]) for key in ("href", "src") if key in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def site(made_site):
    return made_site / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def board_page(pages):
    return pages["made-up/index.html"]


def of(page, tag, **wanted):
    """Attributes of the elements of this tag that hold these classes and values."""
    found = [given for name, given in page.elements if name == tag]
    return [
        given for given in found if all(value in (given.get(key) or "").split(" ") for key, value in wanted.items())
    ]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_entries_give_the_same_bytes_in_another_process_without_torch(made_site, tmp_path):
    code = (
        "import sys; from pathlib import Path; from leaderboards.site.build import write_site;"
        "write_site(*map(Path, sys.argv[1:]));"
        "print(*{'torch', 'torchvision', 'opacus', 'matplotlib', 'seaborn', 'sklearn'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code, tmp_path / "again", made_site / "published"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "LEAKBOARD_BOARDS": str(made_site / "boards")}
    environment |= {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert digests(tmp_path / "again") == digests(made_site / "site")


def test_every_kind_of_page_is_there(pages):
    kinds = Counter(re.sub(r"[^/]+\.html$", "", name) for name in pages)
    assert {"", "made-up/", "cifar10-samples-v1/", "made-up/defenses/", "made-up/cells/"} <= kinds.keys()
    assert kinds["made-up/defenses/"] == 4
    assert kinds["made-up/cells/"] == 6 * 2 * 12


def test_the_page_of_a_board_says_that_its_attacks_hold_no_public_images(pages):
    page = board_page(pages)
    assert "".join(page.text).count(NO_PUBLIC_IMAGES) == 1
    # Whoever only looks at the head of the page sees it: it stands before the first question.
    tags = [(tag, given.get("class") or "") for tag, given in page.elements]
    assert tags.index(("p", "notice")) < tags.index(("section", "question"))


def test_every_link_leads_to_a_file_and_a_place_of_the_site_and_every_page_is_linked(site, pages):
    linked = set()
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), name
        for tag, key, target in page.links:
            if target.startswith("https:"):
                continue
            assert not re.match(r"[a-z]*:|/", target), (name, target)
            path, _, anchor = unquote(target).partition("#")
            found = (site / name).parent / path if path else site / name
            assert found.resolve().is_relative_to(site.resolve())
            assert found.is_file(), (name, tag, key, target)
            linked |= {found.resolve()} if found.resolve() != (site / name).resolve() else set()
            if anchor:
                assert anchor in pages[found.resolve().relative_to(site.resolve()).as_posix()].ids, (name, target)
    assert {(site / name).resolve() for name in pages} <= linked


def test_nothing_comes_from_elsewhere_and_links_there_are_plugins_and_papers(pages):
    outward = {(name, target) for name, page in pages.items() for _, _, target in page.links if ":" in target}
    assert {target for _, target in outward} == {*OWN_LINKS, PLUGIN}
    for page in pages.values():
        for given in of(page, "a"):
            if given["href"] == PLUGIN:
                assert given["rel"] == "noopener nofollow ugc"


def test_every_page_is_sealed_and_has_no_script_or_style_of_its_own(site, pages):
    for name, page in pages.items():
        [policy] = [g["content"] for t, g in page.elements if g.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'"), name
        assert "unsafe" not in policy
        assert all("src" in given for given in of(page, "script")), name
        assert not of(page, "style"), name
        assert not [given for _, given in page.elements for key in given if key == "style" or key.startswith("on")]
    for path in (site / "assets").iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", path.read_text()), path


def test_every_page_says_its_language_its_title_and_its_landmarks(pages):
    titles = Counter()
    for name, page in pages.items():
        assert of(page, "html")[0]["lang"] == "en"
        assert [tag for tag, _ in page.elements].count("main") == 1, name
        assert [tag for tag, _ in page.elements].count("h1") == 1, name
        assert of(page, "a")[0] == {"class": "skip", "href": "#content"}
        assert all(given.get("alt") for given in of(page, "img")), name
        assert all(given["width"].isdigit() and given["height"].isdigit() for given in of(page, "img"))
        titles[name] = page.text[page.text.index(next(t for t in page.text if t.strip()))]
    assert len(set(titles.values())) > 20


def test_a_leaderboard_can_be_sorted_and_filtered_and_is_complete_without(pages):
    page = board_page(pages)
    heads = of(page, "th", scope="col")
    assert {given["data-sort"] for given in heads if "data-sort" in given} == {"number", "text"}
    assert [given["aria-sort"] for given in heads if "aria-sort" in given] == ["ascending"] * 2
    assert len(of(page, "table", **{"class": "board"})) == 2
    rows = [given for given in of(page, "tr") if "data-state" in given]
    assert Counter(given["data-state"] for given in rows) == {"re-run": 8, "self-reported": 2, "artefact-checked": 2}
    assert all("hidden" in given for given in of(page, "form"))
    assert not of(page, "button")


def test_a_failed_cell_is_hatched_with_its_status_and_its_page_says_why(pages):
    page = board_page(pages)
    assert len(of(page, "td", **{"class": "failed"})) == 2
    failed = [other for name, other in pages.items() if name.startswith("made-up/cells/zeros") and not of(other, "img")]
    assert len(failed) == 2
    assert any("RuntimeError: no bias" in text for text in failed[0].text)


def test_ranks_are_those_of_the_entries_that_were_run_again_alone(made_site):
    with board_of(made_site / "boards"):
        own = published("made-up", made_site / "published")
    found = results(own)
    for standings in found.standings.values():
        ranks = {own.defense: own.rank.lowest for own in standings if own.rank is not None}
        assert ranks.keys() == {"none", *(label for label, *_ in made_entries.NOISE)}
        assert min(ranks.values()) == 1
    frames, ranked = own.frames(), own.frames(ranked=True)
    for whole, part in zip(frames, ranked, strict=True):
        kept = whole[whole["entry"].isin({entry.name for entry in own.ranked})]
        assert len(kept) == len(part)


def test_a_text_never_becomes_an_element_an_attribute_or_an_address(tmp_path, pages):
    say = lambda text: f"{text} {HOSTILE}"
    with board_of(tmp_path / "boards"):
        make_published(tmp_path / "published", say)
        write_site(tmp_path / "site", tmp_path / "published")
        make_published(tmp_path / "plain", lambda text: f"{text} x")
        write_site(tmp_path / "site-plain", tmp_path / "plain")
    hostile = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    plain = {path.relative_to(tmp_path / "site-plain"): path for path in (tmp_path / "site-plain").rglob("*.html")}
    assert len(hostile) == len(plain)
    shapes = lambda paths: Counter(shape(Page(path)) for path in paths)
    assert shapes(hostile.values()) == shapes(plain.values())
    assert any("alert(1)" in text for text in Page(hostile["made-up/index.html"]).text)
    for name, path in hostile.items():
        page = Page(path)
        assert re.fullmatch(r"[a-z0-9/.-]+", name)
        safe = [
            given[key] for _, given in page.elements for key in ("href", "src", "id", "class", "for") if key in given
        ]
        assert all(re.fullmatch(r"[A-Za-z0-9/.# _-]*", value) or value in {*OWN_LINKS, PLUGIN} for value in safe), name


def shape(page):
    """Every element with its attributes' names, and the values that no text may choose; but breaks and labels."""
    kept = ("rel", "role", "scope", "type", "aria-sort", "data-sort", "colspan", "rowspan", "loading", "http-equiv")
    found = []
    for tag, given in page.elements:
        if tag not in ("wbr", "text"):
            found.append((tag, tuple(sorted(given)), tuple(given.get(key) for key in kept)))
    return tuple(found)


def test_a_board_without_entries_and_one_with_a_single_defense_have_pages(tmp_path, pages):
    assert any("Nobody has handed in an entry yet" in text for text in pages["paper-v1/index.html"].text)
    with board_of(tmp_path / "boards"):
        make_entry(tmp_path / "published" / "made-up", "none", [NONE])
        write_site(tmp_path / "site", tmp_path / "published")
    page = Page(tmp_path / "site" / "made-up" / "index.html")
    assert any("no entry has been run again yet" in text for text in page.text)
    assert len([given for given in of(page, "tr") if "data-state" in given]) == 1


def test_images_are_the_same_on_every_page_of_a_question(pages):
    shown = set()
    for name, page in pages.items():
        if name.startswith("made-up/defenses/"):
            captions = [text for text in page.text if re.match(r"(best|median|random): image", text)]
            assert len(captions) == 10, name
            shown.add(tuple(captions))
    assert len(shown) == 1


def test_only_a_site_or_an_empty_folder_is_replaced(tmp_path):
    target = tmp_path / "site"
    target.mkdir()
    with pytest.raises(ConfigurationError, match="name the one of the published entries"):
        write_site(target, tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="has not made; give another -o"):
        write_site(target, tmp_path / "nothing")
    assert (target / "thesis.txt").read_text() == "mine"
    (target / "thesis.txt").unlink()
    write_site(target, tmp_path / "nothing")
    assert (target / MARK).is_file()
    (target / "old.html").write_text("old")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigurationError, match="is a link"):
        write_site(tmp_path / "link", tmp_path / "nothing")
    write_site(target, tmp_path / "nothing")
    assert not (target / "old.html").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_site_that_fails_leaves_the_one_before_as_it_was(tmp_path):
    with board_of(tmp_path / "boards"):
        make_entry(tmp_path / "published" / "made-up", "none", [NONE])
        write_site(tmp_path / "site", tmp_path / "published")
        before = digests(tmp_path / "site")
        path = tmp_path / "published" / "made-up" / "none" / "jobs.json"
        path.write_text(json.dumps({"jobs": []}))
        with pytest.raises(Refused):
            write_site(tmp_path / "site", tmp_path / "published")
    assert digests(tmp_path / "site") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_server_is_for_this_machine_alone(site, tmp_path):
    with server(site, 0) as own:
        assert own.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigurationError, match=f"cannot serve on port {own.server_port}: Address already in"):
            server(site, own.server_port)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", own.server_port))
    with pytest.raises(ConfigurationError, match="is no site"):
        server(tmp_path, 0)


def test_the_server_gives_pages_with_their_type_and_lists_no_folder(site, capsys):
    with server(site, 0) as own:
        threading.Thread(target=own.serve_forever, daemon=True).start()
        try:
            with urlopen(f"http://127.0.0.1:{own.server_port}/") as page:
                assert page.headers.get_content_type() == "text/html"
                assert page.headers["X-Content-Type-Options"] == "nosniff"
                assert page.headers["Cache-Control"] == "no-store"
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"http://127.0.0.1:{own.server_port}/assets/")
        finally:
            own.shutdown()
    assert capsys.readouterr().err == ""


def test_text_on_every_heat_step_can_be_read_in_both_modes(site):
    style = (site / "assets" / "style.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")[:2]
    for mode in (light, dark.split("}\n}")[0]):
        values = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", mode))
        for step in range(10):
            ink = values["dark-on" if step < 6 else "light-on"]
            assert contrast(values[f"h{step}"], ink) >= 4.5, (step, values[f"h{step}"])
        for name in ("ink", "soft", "accent"):
            assert contrast(values[name], values["ground"]) >= 4.5
        for name in ("good", "warn", "bad"):
            assert contrast(values[name], values[f"{name}-soft"]) >= 4.5
        assert all(contrast(values[f"look{i}"], values["ground"]) >= 3 for i in range(9))


def contrast(a, b):
    """Of two colours, by WCAG 2."""
    lights = sorted((luminance(a), luminance(b)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
