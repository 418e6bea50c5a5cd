"""The pages in a real browser: requests, errors, hover, keyboard, sorting, sliders, paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.browser import Browser
from tests.report.conftest import HOSTILE
from tutelage.drawing.colors import contrast
from tutelage.report import write_report


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


def opened(browser: Browser, folder: Path, tmp_path: Path, width: int = 1280) -> Path:
    page = tmp_path / "page.html"
    write_report(folder, page)
    browser.open(page, width)
    return page


@pytest.mark.parametrize("kind", ["run", "study", "search", "comparison"])
def test_a_page_loads_itself_alone_and_says_nothing(
    browser: Browser, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page = opened(browser, request.getfixturevalue(kind), tmp_path)
    assert page.as_uri() in (requests := browser.requests())
    assert set(requests) <= {page.as_uri(), "data:,"}
    assert browser.errors() == []
    assert browser.all("main h2")
    browser.open(page, width=380)
    assert (
        browser.run("return document.documentElement.scrollWidth") <= 380
    )  # wide parts scroll by themselves
    assert browser.errors() == []


def test_names_are_text_and_never_code(browser: Browser, comparison: Path, tmp_path: Path) -> None:
    opened(browser, comparison, tmp_path)
    assert browser.driver.title == "teacher.yaml × student.yaml – tutelage"
    assert browser.all("tbody th")[1].text == HOSTILE
    browser.point(browser.all("figure.map td[tabindex]")[3])
    assert browser.tip[0] == f"teacher.yaml {HOSTILE} × student.yaml head"
    assert not browser.all("main img")


def test_the_pointer_shows_all_that_is_known_about_a_cell(
    browser: Browser, comparison: Path, tmp_path: Path
) -> None:
    opened(browser, comparison, tmp_path)
    browser.find("figure.map")
    cells = browser.all("figure.map td[tabindex]")
    browser.point(cells[1])
    assert browser.tip == [
        "teacher.yaml conv1 × student.yaml head",
        "similarity 0.2500",
        "95 % confidence interval 0.2000 … 0.3000",
        "p-value 0.0200",
        "verdict: caution",
        "Few & far <between>.",
    ]
    browser.point(cells[2])
    assert browser.tip[1:] == ["no value: the features of one layer are constant"]
    browser.point(browser.find("h1"))
    assert browser.tip == []


def test_the_keyboard_shows_it_too(browser: Browser, comparison: Path, tmp_path: Path) -> None:
    from selenium.webdriver import Keys

    opened(browser, comparison, tmp_path)
    stops = browser.all('figure.map td[tabindex="0"]')
    assert len(stops) == 1  # Tab stops once at a map
    stops[0].send_keys(Keys.ARROW_DOWN + Keys.ARROW_DOWN)
    assert browser.tip[1] == "similarity −0.0312"
    focused = browser.driver.switch_to.active_element
    assert focused.text == "−0.03"
    focused.send_keys(Keys.END)
    assert browser.tip[1] == "similarity 0.7100"
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)  # there is nothing further
    assert browser.tip[1] == "similarity 0.7100"
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.tip == []


def test_a_verdict_has_a_shape_and_a_cell_can_be_read(
    browser: Browser, comparison: Path, tmp_path: Path
) -> None:
    opened(browser, comparison, tmp_path)
    shapes = [use.get_attribute("href") for use in browser.all("figure.map tbody use")]
    assert shapes == ["#caution", "#caution", "#do-not-trust"]  # none where a number is to trust
    cells = "[...document.querySelectorAll('figure.map tbody td:not(.none)')]"
    colors = f"return {cells}.map(getComputedStyle)"
    for paper, ink in browser.run(f"{colors}.map((s) => [s.backgroundColor, s.color])"):
        assert contrast(_hexadecimal(paper), _hexadecimal(ink)) >= 4.5


def test_a_table_sorts_by_number_both_ways_with_the_missing_last(
    browser: Browser, study: Path, tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    opened(browser, study, tmp_path)
    headers = browser.all("table.sortable thead th")
    texts = [header.text for header in headers]
    column = texts.index("− baseline [95 % confidence interval, paired by seed]")

    def methods() -> list[str]:
        return [
            name.text
            for name in browser.all("table.sortable")[0].find_elements("css selector", "tbody th")
        ]

    assert methods() == ["baseline", "kd"]
    headers[column].find_element("css selector", "button").click()
    assert headers[column].get_attribute("aria-sort") == "ascending"
    assert methods() == ["kd", "baseline"]
    headers[column].find_element("css selector", "button").send_keys(Keys.ENTER)
    assert headers[column].get_attribute("aria-sort") == "descending"
    assert methods() == ["kd", "baseline"]
    headers[0].find_element("css selector", "button").click()
    assert (headers[column].get_attribute("aria-sort"), headers[0].get_attribute("aria-sort")) == (
        None,
        "ascending",
    )
    assert methods() == ["baseline", "kd"]


def test_no_column_is_hidden_without_a_cue(browser: Browser, study: Path, tmp_path: Path) -> None:
    hidden = "return arguments[0].scrollWidth - arguments[0].clientWidth"
    opened(browser, study, tmp_path)
    for wide in browser.all(".wide"):
        assert browser.run(hidden, wide) <= 0
    assert not [cue for cue in browser.all(".cue") if cue.is_displayed()]
    opened(browser, study, tmp_path, width=390)
    wide, cue = browser.find(".wide"), browser.all(".cue")[0]
    assert browser.run(hidden, wide) > 0
    assert cue.is_displayed()
    assert "more" in wide.get_attribute("class").split()
    name = browser.all("table.sortable tbody th")[0]
    before = name.rect["x"]
    browser.run("arguments[0].scrollLeft = 1e4", wide)
    assert name.rect["x"] == before  # the first column stays
    assert name.is_displayed()


def test_numbers_are_not_sorted_as_words(browser: Browser, study: Path, tmp_path: Path) -> None:
    opened(browser, study, tmp_path)
    browser.run("document.querySelector('details:has(table)').open = true")
    table = browser.find("details table.sortable")
    texts = [cell.text for cell in table.find_elements("css selector", "thead th")]
    seconds = texts.index("seconds")
    cells = "[...arguments[0].tBodies[0].rows].map((row) => row.cells[arguments[1]].dataset)"
    browser.run(
        f"{cells}.forEach((data, i) => {{ data.value = [10, 9, 1e2, -1][i]; }})", table, seconds
    )
    table.find_elements("css selector", "thead button")[seconds].click()
    assert browser.run(f"return {cells}.map((data) => Number(data.value))", table, seconds) == [
        -1,
        9,
        10,
        100,
    ]


def test_the_slider_moves_the_map(browser: Browser, run: Path, tmp_path: Path) -> None:
    from selenium.webdriver import Keys

    opened(browser, run, tmp_path)
    slider, first = browser.find("figure.map input"), browser.all("figure.map td[tabindex]")[0]
    output = browser.all("figure.map output")[0]
    assert (output.text, first.text, first.get_attribute("class")) == ("epoch 2", "0.40", "h20")
    slider.send_keys(Keys.ARROW_LEFT)
    assert (output.text, first.text, first.get_attribute("class")) == ("epoch 1", "0.20", "h10")
    slider.send_keys(Keys.HOME)
    assert slider.get_attribute("aria-valuetext") == output.text == "epoch 0"
    assert (first.text, first.get_attribute("class")) == ("0.00", "h0")
    browser.point(browser.all("figure.map td[tabindex]")[3])
    assert browser.tip == ["teacher 3 × student 0", "CKA 0.1000", "epoch 0"]
    slider.send_keys(Keys.END)
    browser.point(browser.all("figure.map td[tabindex]")[3])
    assert browser.tip[1:] == ["CKA 0.5000", "epoch 2", "epoch 0: 0.1000"]


def test_what_changed_has_colors_of_its_own(browser: Browser, run: Path, tmp_path: Path) -> None:
    from selenium.webdriver import Keys

    opened(browser, run, tmp_path)
    slider = browser.all("figure.map input")[1]
    cell = browser.all("figure.map tbody")[1].find_element("css selector", "td")
    assert (cell.text, cell.get_attribute("class")) == ("+0.40", "d50")
    slider.send_keys(Keys.HOME)
    assert (cell.text, cell.get_attribute("class")) == ("+0.20", "d38")
    browser.find("figure.map:last-of-type")
    browser.point(cell)
    assert browser.tip == [
        "teacher 0 × student 0",
        "difference in CKA +0.2000",
        "epoch 1 − epoch 0",
    ]


def test_a_curve_is_read_off_by_pointer_and_keys(
    browser: Browser, study: Path, tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    opened(browser, study, tmp_path)
    plot = browser.find(".plot[tabindex]")
    browser.point(plot)
    assert browser.tip[0].startswith("epoch ")
    assert [line.split()[0] for line in browser.tip[1:]] == ["baseline", "kd"]
    plot.send_keys(Keys.HOME)
    assert browser.tip[0] == "epoch 1"
    plot.send_keys(Keys.ARROW_RIGHT)
    assert browser.tip[0] == "epoch 2"


def test_paper_has_no_controls_and_the_recipe_is_unfolded(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    opened(browser, run, tmp_path)
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display !== 'none'"
    assert browser.run(shown, ".control")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not browser.run(shown, ".control")
        arrow = (
            "return getComputedStyle(document.querySelector('.sortable button'), '::after').display"
        )
        assert browser.run(arrow) == "none"
        assert browser.run(shown, "figure.map output")  # which map it is, is still said
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    unfolded = (
        "dispatchEvent(new Event(arguments[0])); "
        "return document.querySelector('details[data-printed]').open"
    )
    assert browser.run(unfolded, "beforeprint")
    assert not browser.run(unfolded, "afterprint")


def test_the_slider_sets_how_sure_a_network_must_be(
    browser: Browser, pictured: Path, tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    opened(browser, pictured, tmp_path)
    slider = browser.find(".pictures input")
    panel = browser.all(".panel")[3]  # truth, teacher, baseline, and this one
    drawing, count = (
        panel.find_element("css selector", ".picture"),
        panel.find_element("css selector", ".count"),
    )
    shown = (
        "return [...arguments[0].querySelectorAll('.shape')]"
        ".filter((s) => getComputedStyle(s).display !== 'none')"
    )
    assert browser.run(f"{shown}.map((s) => s.classList[1])", drawing) == ["missed", "hit"]
    slider.send_keys(Keys.ARROW_RIGHT * 2)  # to the very score of the box, which is still shown
    assert count.text == "1 of 2 found, 0 false"
    assert browser.run(f"{shown}.map((s) => s.classList[1])", drawing) == ["missed", "hit"]
    slider.send_keys(Keys.ARROW_LEFT * 4)
    assert count.text == "1 of 2 found, 1 false"
    slider.send_keys(Keys.ARROW_LEFT)
    assert (
        browser.all(".pictures output")[0].text
        == slider.get_attribute("aria-valuetext")
        == "score ≥ 0.55"
    )
    assert count.text == "1 of 2 found, 1 false"
    assert drawing.get_attribute("aria-label") == "test image 0, kd: 1 of 2 found, 1 false"
    slider.send_keys(Keys.END)
    assert count.text == "0 of 2 found, 0 false"
    assert browser.run(f"{shown}.map((s) => s.classList[1])", drawing) == ["missed", "missed"]
    slider.send_keys(Keys.HOME)
    assert count.text == "1 of 2 found, 2 false"
    assert (
        browser.all(".panel")[0].find_element("css selector", "figcaption span").text == "2 boxes"
    )
    assert browser.errors() == []


def test_a_box_is_read_by_pointer_and_keys(
    browser: Browser, pictured: Path, tmp_path: Path
) -> None:
    from selenium.webdriver import Keys

    opened(browser, pictured, tmp_path)
    teacher = browser.all(".picture")[1]
    browser.find(".picture")
    browser.point(teacher.find_elements("css selector", ".hit")[0])
    assert browser.tip == ["tree, score 0.90", "overlap 1.00"]
    browser.point(browser.find("h1"))
    assert browser.tip == []
    teacher.send_keys(Keys.ARROW_RIGHT)
    assert browser.tip[0] == "tree, score 0.90"
    teacher.send_keys(Keys.ARROW_RIGHT)
    assert browser.tip == ["<b>car</b>, score 0.70", "overlap 0.95"]
    teacher.send_keys(Keys.ARROW_RIGHT)
    assert browser.tip[0] == "tree, score 0.90"
    teacher.send_keys(Keys.ESCAPE)
    assert browser.tip == []
    cells = browser.all(".picture.map .cell")
    browser.find(".picture.map")
    browser.point(cells[3])
    assert browser.tip == ["row 2, column 2", "agreement −0.100"]


def test_pictures_load_nothing_and_fit_narrow_windows_paper_and_the_dark(
    browser: Browser, pictured: Path, tmp_path: Path
) -> None:
    page = opened(browser, pictured, tmp_path, width=380)
    assert all(
        address == page.as_uri() or address.startswith("data:") for address in browser.requests()
    )
    assert browser.run("return document.documentElement.scrollWidth") <= 380
    ink = (
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    try:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        color, paper = (_hexadecimal(value) for value in browser.run(ink))
        assert contrast(color, paper) >= 7
        assert paper < "#222222"
        quiet = browser.run("return getComputedStyle(document.querySelector('.panel span')).color")
        assert contrast(_hexadecimal(quiet), paper) >= 4.5
        browser.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": "print", "features": dark}
        )
        assert [_hexadecimal(value) for value in browser.run(ink)][1] == "#ffffff"  # paper is white
        assert (
            browser.run(
                "return getComputedStyle(document.querySelector('.pictures input')).display"
            )
            == "none"
        )
        assert browser.all(".pictures output")[0].is_displayed()  # which score it is, is still said
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert browser.errors() == []


def _hexadecimal(color: str) -> str:
    channels = color.removeprefix("rgb(").rstrip(")").split(",")
    return "#" + "".join(f"{int(channel):02x}" for channel in channels)
