"""The page in a real browser, without network: what is drawn, linked, read, sorted and reached by keyboard."""

import csv
import re
from types import SimpleNamespace

import pytest

LINES = '[data-panel="score-by-learning-rate:1"] g.mark-line.role-mark path'
CHOSEN = 64


@pytest.fixture(scope="module")
def open_page(browser, simulated_page):
    """Open the page as a reader with such a screen would, and note all that it says and asks for."""
    contexts = []

    def opened(**screen):
        context = browser.new_context(**screen)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(simulated_page.as_uri())
        page.wait_for_selector("html[data-drawn]")
        return SimpleNamespace(page=page, said=said, asked=asked)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def opened(open_page):
    return open_page(viewport={"width": 1280, "height": 800})


@pytest.fixture
def page(opened):
    """The page with nothing chosen."""
    opened.page.keyboard.press("Escape")
    opened.page.wait_for_function("document.querySelector('[data-size=\"0\"]').ariaPressed === 'true'")
    return opened.page


def point_at(size):
    return f'[data-panel="best-score"] path[aria-roledescription="point"][aria-label*="batch size B: {size};"]'


def marks(page, panel, kind):
    return page.locator(f'[data-panel="{panel}"] g.mark-{kind}.role-mark path').count()


def test_it_opens_without_network_and_without_a_complaint(opened, simulated_page):
    assert opened.asked == [simulated_page.as_uri()]
    assert opened.said == []


def test_every_figure_is_drawn_with_as_many_marks_as_its_table_has_rows(page, study_tables):
    panels = page.eval_on_selector_all("[data-panel]", "all => all.map(one => one.dataset.panel)")
    assert int(page.get_attribute("html", "data-drawn")) == len(panels) == 33
    part = study_tables.parts[0]
    scores, losses = (part.optima.filter(criterion=criterion) for criterion in ("score", "train_loss"))
    wanted = {"best-score": scores, "training-loss": losses, "optimal-temperature": scores.remove(temperature=0)}
    for number, optimizer in enumerate(("sgd", "momentum:0.9"), start=1):
        mine = part.curves.filter(optimizer=optimizer)
        wanted |= {f"{kind}-by-learning-rate:{number}": mine for kind in ("score", "loss")}
        wanted[f"score-by-temperature:{number}"] = mine.remove(temperature=0)
        along = part.training_curves.filter(optimizer=optimizer)
        wanted[f"loss-along-training:{number}"] = along.filter(metric="minibatch_loss")
        wanted[f"score-along-training:{number}"] = along.filter(metric="test_score")
        noise = part.noise_scale_at_best.filter(optimizer=optimizer)
        wanted[f"noise-scale:{number}"] = noise.filter("identified")
        wanted[f"sharpness:{number}"] = part.sharpness_at_best.filter(optimizer=optimizer)
    drawn = {panel: marks(page, panel, "symbol") for panel in wanted}
    assert drawn == {panel: len(table) for panel, table in wanted.items()}
    assert all(marks(page, panel, "symbol") for panel in panels)


def test_a_click_on_a_point_chooses_its_batch_size_everywhere(page, study_tables):
    page.locator("#table-trials summary").click()
    lines = "(lines) => lines.map((line) => Number(line.getAttribute('opacity') ?? 1))"
    assert set(page.eval_on_selector_all(LINES, lines)) == {0.9}
    page.locator(point_at(CHOSEN)).last.click()
    assert page.get_attribute(f'[data-size="{CHOSEN}"]', "aria-pressed") == "true"
    page.wait_for_function(f"[...document.querySelectorAll('{LINES}')].some((l) => l.getAttribute('opacity') < 0.5)")
    assert sorted(page.eval_on_selector_all(LINES, lines))[-2:] == [0.12, 0.9]
    mine = study_tables.trials.filter(batch_size=CHOSEN)
    assert page.inner_text("#chosen") == f"{len(mine)} trials"
    assert page.locator("#table-trials tbody tr").count() == len(mine)
    assert page.locator("#table-summary tbody tr").count() == 3  # two optimizers, and a longer budget
    # The same again chooses all.
    page.locator(point_at(CHOSEN)).last.click()
    assert page.get_attribute('[data-size="0"]', "aria-pressed") == "true"
    page.locator("#table-trials summary").click()


def test_a_click_on_a_line_of_one_batch_size_chooses_it_and_one_over_batch_sizes_nothing(page):
    def click(selector, number=0):
        middle = """(line) => {
            const point = line.getPointAtLength(line.getTotalLength() * 0.03).matrixTransform(line.getScreenCTM());
            return [point.x, point.y];
        }"""
        line = page.locator(selector).nth(number)
        line.scroll_into_view_if_needed()
        page.mouse.click(*line.evaluate(middle))

    click('[data-panel="optimal-temperature"] g.mark-line.role-mark path')
    assert page.get_attribute('[data-size="0"]', "aria-pressed") == "true"
    click('[data-panel="loss-along-training:1"] g.mark-line.role-mark path', number=2)
    assert page.get_attribute('[data-size="0"]', "aria-pressed") == "false"


def test_hovering_names_the_cell_n_mean_interval_and_diverged(page):
    page.locator(point_at(16)).last.hover()  # which lies above the others
    page.wait_for_selector("#vg-tooltip-element.visible")
    said = page.inner_text("#vg-tooltip-element")
    names = ["optimizer", "batch size", "seeds", "mean", "95 % low", "95 % high", "learning rate ε", "diverged"]
    assert re.findall(r"^(.*?):?\t", said, re.MULTILINE) == names
    assert re.search(r"batch size:?\t16\n", said)
    assert re.search(r"seeds:?\t4\n", said)
    page.mouse.move(0, 0)


def test_all_of_it_is_reached_by_keyboard(page):
    page.focus('[data-size="0"]')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.size") == "8"
    assert page.get_attribute('[data-size="8"]', "aria-pressed") == "true"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Escape")
    assert page.get_attribute('[data-size="0"]', "aria-pressed") == "true"
    page.focus('#best-score a[href="#table-optima"]')
    page.keyboard.press("Enter")
    assert page.get_attribute("#table-optima", "open") is not None
    page.focus("#claims summary")
    page.keyboard.press("Enter")
    assert "Rule:" in page.inner_text("#claims details[open]")


def test_tables_sort_by_number_and_copy_as_csv(page, study_tables):
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    table = page.locator("#table-transitions")
    if table.get_attribute("open") is None:
        table.locator("summary").click()
    heading = table.get_by_role("button", name="transition", exact=True)
    assert heading.get_attribute("title").startswith("Transition batch size B_ε:")
    heading.click()
    heading.click()
    assert table.locator('th[aria-sort="descending"]').inner_text().startswith("transition")
    table.get_by_role("button", name="Copy as CSV").click()
    page.wait_for_function("window.copied")
    copied = list(csv.DictReader(page.evaluate("window.copied").splitlines()))
    assert list(copied[0]) == study_tables.transitions.columns[1:]  # of one workload
    bends = [float(row["transition"]) for row in copied if row["transition"]]
    known = sorted(study_tables.transitions["transition"].drop_nulls(), reverse=True)
    assert bends == pytest.approx(known, rel=1e-4)
    assert "Copied" in table.get_by_role("status").inner_text()


def test_a_dark_screen_has_light_text_and_the_same_colours_of_optimizers(open_page, page):
    dark = open_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    assert dark.said == []

    def lightness(of, selector, what):
        colour = of.eval_on_selector(selector, f"(one) => getComputedStyle(one).{what}")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    label = '[data-panel="best-score"] .mark-text.role-axis-label text'
    assert lightness(page, "body", "backgroundColor") > 250
    assert lightness(page, label, "fill") < 40
    assert lightness(dark.page, "body", "backgroundColor") < 40
    assert lightness(dark.page, label, "fill") > 220
    point = '[data-panel="best-score"] g.mark-symbol.role-mark path'
    assert page.locator(point).first.get_attribute("fill") == dark.page.locator(point).first.get_attribute("fill")


def test_a_phone_shows_it_without_scrolling_sideways(open_page):
    phone = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    assert phone.said == []
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
    widths = phone.page.eval_on_selector_all(
        ".chart svg.marks", "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert len(widths) == 33
    assert max(widths) <= 390
    phone.page.locator(point_at(CHOSEN)).last.tap()
    assert phone.page.get_attribute(f'[data-size="{CHOSEN}"]', "aria-pressed") == "true"
