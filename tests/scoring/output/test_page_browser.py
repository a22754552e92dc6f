"""The page in a browser: what it shows, hides and fetches. Skipped where there is none."""

import contextlib
import itertools
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from scoring.benchmarks.benchmark import find_benchmark
from scoring.output.page import write_page

LOGS = Path(__file__).parents[4] / "shared" / "algoperf_logs"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE_NAME = '"><img src=x onerror=alert(1)>'
HOSTILE_TEXT = "<script>alert(3)</script>{{ 7 * 7 }}"
COMMAND = "algoperf score runs --out out"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("needs a Chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """`with opened(path, **context) as page`: nothing is complained of, nothing else requested."""

    @contextlib.contextmanager
    def visit(path, **facts):
        context = browser.new_context(**facts)
        page = context.new_page()
        problems, requests = [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        yield page
        context.close()
        assert problems == []
        assert requests == [path.as_uri()]

    return visit


def displays(page, selector):
    shown = "all => all.map(one => getComputedStyle(one).display)"
    return set(page.locator(selector).evaluate_all(shown))


def test_a_button_hides_the_lines_of_a_submission(opened, page_of, quick_slow_lost):
    with opened(page_of(quick_slow_lost)) as page:
        button = page.get_by_role("button", name="slow", exact=True)
        place = button.get_attribute("data-toggle")
        mine, others = f'.plot g[data-s="{place}"]', f'.plot g[data-s]:not([data-s="{place}"])'
        assert page.locator(mine).count() >= 3  # the profile and two panels
        assert displays(page, mine) == displays(page, others) == {"inline"}
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        assert (displays(page, mine), displays(page, others)) == ({"none"}, {"inline"})
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert displays(page, mine) == {"inline"}


def test_the_tooltip_tells_the_nearest_point(opened, page_of, quick_slow_lost):
    with opened(page_of(quick_slow_lost)) as page:
        chart = page.locator('.by-time svg[data-w="letters"]')
        chart.scroll_into_view_if_needed()
        where = "one => (({x, y}) => [x, y])(one.getBoundingClientRect())"
        x, y = chart.locator(".hit.chosen").first.evaluate(where)
        page.mouse.move(x, y)
        assert page.locator(".tip").is_visible()
        lines = page.locator(".tip").inner_text().split("\n")
        assert lines[0] in ("quick", "slow")
        assert re.fullmatch(r"letters, study \d, trial \d", lines[1])
        told_s, told = float(lines[2].split()[0]), float(lines[3].split()[1])
        reached_s = [9.0] if lines[0] == "quick" else [20.0, 21.0, 22.0]
        assert min(abs(told_s - value) for value in reached_s) < 0.02
        assert (round(told, 3), lines[4]) == (0.9, "meets the target here")
        page.mouse.move(0, 0)
        assert page.locator(".tip").is_hidden()
        page.locator("svg[data-kind=profile]").hover()
        assert page.locator(".tip").inner_text().split("\n")[0] in ("quick", "slow", "lost")
        assert "of the workloads" in page.locator(".tip").inner_text()


def test_curves_against_steps_and_on_a_logarithmic_axis(tmp_path, opened, reach, analyses_of):
    for study in range(2):
        trial = reach(10.0 + study, 100, study=study)
        rows = "".join(f"{step},1.0,1.0,{10.0 ** -(step // 50)}\n" for step in (0, 50, 100))
        header = "global_step,loss,gradient_norm,learning_rate\n"
        (trial / "measurements.csv").write_text(header + rows)
    path = write_page(*analyses_of(tmp_path / "runs"), COMMAND, tmp_path / "report.html")
    with opened(path) as page:
        assert (displays(page, ".by-time"), displays(page, ".by-steps")) == ({"block"}, {"none"})
        page.get_by_role("radio", name="steps").check()
        assert (displays(page, ".by-time"), displays(page, ".by-steps")) == ({"none"}, {"block"})
        chart = page.locator(".by-steps svg[data-metric='learning rate']")
        chart.scroll_into_view_if_needed()
        line = chart.locator("g[data-s] path").first.evaluate(
            "one => (({right, bottom}) => [right, bottom])(one.getBoundingClientRect())"
        )
        page.mouse.move(line[0] - 1, line[1] - 1)  # the last and lowest point
        lines = page.locator(".tip").inner_text().split("\n")
        assert lines[2:] == ["step 100", "learning rate 1e\N{MINUS SIGN}2"]
        ticks = chart.locator(".grid .ty")
        marks = ticks.all_text_contents()
        assert "1e\N{MINUS SIGN}1" in marks
        chart.press("+")
        chart.press("0")
        assert ticks.all_text_contents() == marks  # page.js writes what svg.py wrote


def test_tables_that_are_wider_than_the_screen_say_so(opened, page_of, quick_slow_lost):
    path = page_of(quick_slow_lost)
    hints = "all => all.map(one => one.hidden)"
    with opened(path, viewport={"width": 400, "height": 800}) as page:
        table = page.get_by_role("region", name="Leaderboard")
        assert table.evaluate("one => one.scrollWidth > one.clientWidth")
        assert page.locator(".hint").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    with opened(path, viewport={"width": 1400, "height": 800}) as page:
        assert set(page.locator(".hint").evaluate_all(hints)) == {True}


def test_zoom_and_back(opened, page_of, quick_slow_lost):
    with opened(page_of(quick_slow_lost)) as page:
        chart = page.locator('.by-time svg[data-w="digits"]')
        chart.scroll_into_view_if_needed()
        plot, ticks = chart.locator(".plot"), chart.locator(".grid text")
        whole, marks = plot.get_attribute("viewBox"), ticks.all_text_contents()
        box = chart.bounding_box()

        def drag():
            page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"])
            page.mouse.up()
            view = [float(value) for value in plot.get_attribute("viewBox").split()]
            assert view[2] == pytest.approx(0.3 * 10 * 420, rel=0.02)  # tenths of the chart's width
            assert ticks.all_text_contents() != marks

        def is_whole():
            return plot.get_attribute("viewBox") == whole and ticks.all_text_contents() == marks

        drag()
        page.get_by_role("button", name="reset zoom: accuracy on digits against time").click()
        assert is_whole()
        drag()
        chart.dblclick()
        assert is_whole()
        chart.press("+")
        assert not is_whole()
        chart.press("ArrowLeft")
        chart.press("0")
        assert is_whole()


def test_narrow_dark_and_printed(tmp_path, reach, opened, analyses_of):
    for study, name in itertools.product(range(2), ("w" * 150, "x" * 90, HOSTILE_NAME)):
        trial = reach(10.0, submission=name, study=study, workload="y" * 100)
        variant = {"base_workload": "y" * 100, "changes": {"a" * 90: "b" * 300}}
        reach(12.0, submission=name, study=study, workload="v" * 90, flags=variant)
        values = {"k" * 200: HOSTILE_TEXT * 50, HOSTILE_TEXT: list(range(100))}
        (trial / "hparams.json").write_text(json.dumps(values))
    analyses, findings = analyses_of(tmp_path / "runs")
    page_path = write_page(analyses, findings, "z" * 500, tmp_path / "report.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('.plot g.s0 path:not(.band)')).stroke"
    narrow = {"viewport": {"width": 400, "height": 800}}
    with opened(page_path, **narrow, color_scheme="light") as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        light = page.evaluate(ground), page.evaluate(line)
    with opened(page_path, **narrow, color_scheme="dark") as page:
        dark = page.evaluate(ground), page.evaluate(line)
        assert all(one != other for one, other in zip(light, dark, strict=True))
        assert page.locator("details.workload table").first.is_hidden()
        page.emulate_media(media="print")
        assert (page.evaluate(ground), page.evaluate(line)) == light
        assert page.locator("details.workload table").first.is_visible()
        assert displays(page, ".tools") == {"none"}


def test_without_javascript(opened, page_of, quick_slow_lost):
    with opened(page_of(quick_slow_lost), java_script_enabled=False) as page:
        assert page.get_by_role("cell", name="1.0000").first.is_visible()
        assert page.locator("svg.chart").first.is_visible()
        assert page.locator(".js-only").first.is_hidden()


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the public logs beside the repository")
def test_public_logs_of_version_06(tmp_path, opened, analyses_of):
    with tarfile.open(LOGS / "v06_external.tar.xz") as archive:
        archive.extractall(tmp_path / "logs", filter="data")
    analyses, findings = analyses_of(tmp_path / "logs", benchmark=find_benchmark("algoperf-0.6"))
    path = write_page(analyses, findings, COMMAND, tmp_path / "report.html")
    assert path.stat().st_size < 1_000_000
    with opened(path, viewport={"width": 1400, "height": 900}) as page:
        assert page.locator("svg.chart").count() == 1 + 2 * 8
        assert page.get_by_role("cell", name="0.6239").first.is_visible()
