"""The site in a real browser: sorting, filtering, pictures, both modes, narrow windows, and what axe finds."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: no browser looks at the site"
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: nobody looks at the site"),
]
KINDS = ["index.html", "method.html", "made-up/index.html", "paper-v1/index.html", "defense", "cell", "failed"]
SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def site(made_site):
    return made_site / "site"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as own:
        found = own.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, site):
    """Opens a page of the site; in the end nothing was asked for outside its folder and nobody complained."""
    contexts, asked, complaints = [], [], []

    def open_page(name, width=1280, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((site / path_of(site, name)).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
    assert asked
    assert all(url.startswith(site.as_uri() + "/") for url in asked)


def path_of(site, kind):
    """A page of this kind."""
    if kind == "defense":
        return min((site / "made-up" / "defenses").glob("gaussian*.html")).relative_to(site)
    if kind in ("cell", "failed"):
        pages = sorted((site / "made-up" / "cells").glob("zeros-*.html"))
        wanted = {"cell": "reconstructions, mean SSIM", "failed": "RuntimeError: no bias"}[kind]
        return next(path for path in pages if wanted in path.read_text()).relative_to(site)
    return kind


def shown(page, column=1):
    """The texts of a column of the first leaderboard's rows that can be seen."""
    rows = page.locator("table.board").first.locator("tbody tr:visible")
    return [text.split("\n")[0] for text in rows.locator(f":nth-child({column + 1})").evaluate_all(READ)]


READ = "cells => cells.filter(c => c.parentElement.tagName === 'TR').map(c => c.querySelector('.main, a').textContent)"


def test_a_column_is_sorted_by_its_heading_with_mouse_and_keyboard(visit):
    page = visit("made-up/index.html")
    table = page.locator("table.board").first
    button = table.get_by_role("button", name="accuracy", exact=True)
    button.click()
    values = [float(text.rstrip("%")) for text in shown(page, 7)]
    assert values == sorted(values)
    assert len(values) == 6
    assert table.locator("[aria-sort]").count() == 1
    button.focus()
    page.keyboard.press("Enter")
    assert [float(text.rstrip("%")) for text in shown(page, 7)] == values[::-1]
    assert table.locator("[aria-sort=descending]").inner_text() == "accuracy"
    table.get_by_role("button", name="rank").click()
    assert [text for text in shown(page, 0)][-2:] == ["\N{EN DASH}"] * 2


def test_rows_are_filtered_by_text_state_and_verdict(visit):
    page = visit("made-up/index.html")
    form = page.locator("form.filters").first
    form.get_by_label("Filter").fill("GAUSSIAN")
    assert len(shown(page)) == 3
    assert form.locator("output").inner_text() == "3 of 6"
    form.get_by_label("Filter").fill("")
    form.get_by_label("re-run").uncheck()
    assert sorted(shown(page)) == ["norm_clipping | zeros", "zeros"]
    form.get_by_label("incomplete").uncheck()
    assert shown(page) == ["norm_clipping | zeros"]
    assert page.locator("table.board").nth(1).locator("tbody tr:visible").count() == 6


def test_without_scripts_everything_is_there_but_the_filters(visit):
    page = visit("made-up/index.html", java_script_enabled=False)
    assert page.locator("table.board tbody tr").count() == 12
    assert page.locator("form.filters:visible").count() == 0
    assert page.locator("button").count() == 0


def test_links_lead_from_the_board_to_a_defense_to_a_cell_and_back(visit):
    page = visit("index.html")
    page.get_by_role("link", name="Made up").click()
    page.get_by_role("link", name="gaussian_noise(std=0.1)").first.click()
    assert page.locator("h1").inner_text() == "gaussian_noise"
    page.get_by_role("link", name="inverting_gradients(iterations=5)").first.click()
    assert "inverting_gradients(iterations=5) on gaussian_noise" in page.locator("h1").inner_text()
    page.get_by_role("link", name="Made up").click()
    assert page.locator("h1").inner_text() == "Made up"


@pytest.mark.parametrize("kind", ["defense", "cell"])
def test_pictures_are_there_and_shown_pixel_by_pixel(visit, kind):
    page = visit(kind)
    count = page.locator("img").count()
    assert count >= 2
    for i in range(count):
        page.locator("img").nth(i).scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    assert all(page.evaluate("[...document.images].map((image) => image.naturalWidth)"))
    assert set(page.evaluate("[...document.images].map((i) => getComputedStyle(i).imageRendering)")) == {"pixelated"}


def test_dark_mode_is_dark_and_light_mode_light(visit):
    grounds = {}
    for scheme in ("light", "dark"):
        page = visit("made-up/index.html", scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds[scheme] = sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))
    assert grounds["dark"] < 150 < 600 < grounds["light"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_page_is_wider_than_a_phone_and_nothing_moves_while_it_loads(visit, site, kind):
    page = visit("index.html", width=360)
    page.context.add_init_script(SHIFTS)
    page.goto((site / path_of(site, kind)).as_uri())
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("window.shifts") < 0.02


def test_a_wide_table_is_scrolled_by_keyboard_and_keeps_its_first_column(visit):
    page = visit("made-up/index.html", width=360)
    region = page.get_by_role("region", name="Leaderboard").first
    region.focus()
    before = page.locator("table.board th.sticky[scope=row]").first.bounding_box()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(400)
    assert region.evaluate("element => element.scrollLeft") > 60
    after = page.locator("table.board th.sticky[scope=row]").first.bounding_box()
    assert 0 <= after["x"] <= before["x"]


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [*((kind, "light") for kind in KINDS), *((kind, "dark") for kind in ("index.html", *KINDS[2::2]))],
)
def test_axe_finds_nothing_serious(visit, kind, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = visit(kind, scheme=scheme)
    # What it would load for itself, the page's policy forbids.
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        f"{own['id']} ({own['impact']}): {own['help']}: {[node['html'][:160] for node in own['nodes'][:3]]}"
        for own in found
    ]
    print(*serious, sep="\n")
    assert [own["id"] for own in found if own["impact"] in ("serious", "critical")] == []
