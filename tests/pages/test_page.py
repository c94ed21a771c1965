"""Every page of the book in a real browser: for every eye, ear and hand, on every screen."""

import gzip
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT
from pdf import PAGES
from playwright.sync_api import Page, Response, Route, expect

MB = 1e6
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
CODE = "book/idea/transform"  # the page that answers for the colors of code
WIDE, NARROW, HUGE = ({"width": w, "height": h} for w, h in ((1280, 900), (360, 780), (2560, 1440)))
# What a formula or a figure consists of is not asked: it is one thing, with one text. Code has the
# same colors on every page, so that its contrast is measured on one of them.
SIMPLIFY = """(withCode) => {
  const all = (selector) => document.querySelectorAll(selector);
  for (const part of all("mjx-math, .bn-figure > svg > *")) part.replaceChildren();
  if (!withCode) for (const code of all(".highlight pre")) code.textContent = code.textContent;
}"""
RUN_AXE = """async (rules) => {
  const options = {resultTypes: ["violations"]};
  if (rules.length) options.runOnly = rules;
  const {violations} = await axe.run(options);
  return violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html}`));
}"""
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The table of frameworks scrolls on every screen, aside or down.
SCROLLED = """() => [...document.querySelectorAll(
  "article :not(mjx-container *, svg *, .bn-frameworks-box)")].every(
  (box) => !["auto", "scroll"].includes(getComputedStyle(box).overflowX)
    || box.scrollWidth > box.clientWidth + 1 === box.tabIndex >= 0)"""
CUT_OFF = """() => {
  const around = new Map(); // the nearest box in which a part does not stick out for all to see
  // What a figure clips to its axes has its whole length for the browser.
  const drawn = "svg :not(text, g:not(:has([clip-path])))";
  const parts = document.querySelectorAll(`article :not(mjx-container *, ${drawn})`);
  return [...parts].filter((part) => {
    const box = around.get(part.parentElement), overflow = (it) => getComputedStyle(it).overflowX;
    around.set(part, overflow(part) === "visible" ? box : part);
    if (!box || box.clientWidth <= 1 || !["hidden", "clip"].includes(overflow(box))) return false;
    const [inner, outer] = [part, box].map((it) => it.getBoundingClientRect());
    return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
  }).map((part) => part.outerHTML.slice(0, 200));
}"""

# A ground without what stands on it, which has gone to the next sheet whole.
TORN = """() => {
  const style = (part) => getComputedStyle(part), paper = style(document.body).backgroundColor;
  const boxes = document.querySelectorAll("article :not(mjx-container *, svg *)");
  return [...boxes].filter((box) => {
    const {backgroundColor, breakInside} = style(box);
    return breakInside === "auto" && !["rgba(0, 0, 0, 0)", paper].includes(backgroundColor)
      && [...box.querySelectorAll("*")].some((part) => style(part).breakInside !== "auto");
  }).map((box) => box.outerHTML.slice(0, 200));
}"""
# It would leave no room for the other columns.
WIDE_IN_A_TABLE = """() => [...document.querySelectorAll("td span.math")]
  .filter((formula) => formula.clientWidth > innerWidth * 2 / 3)
  .map((formula) => formula.textContent)"""
COUNT_SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((seen) => seen.getEntries().forEach(({value}) => { shifted += value; }))
    .observe({type: "layout-shift"});
}"""


def open_page(page: Page, site: str, name: str) -> None:
    page.goto(f"{site}/{name}.html")
    page.evaluate("window.MathJax?.startup.promise")


def overflow(page: Page) -> int:
    """How many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.parametrize("name", PAGES)
def test_is_for_everyone(page: Page, site: str, html: Path, name: str) -> None:
    """Quiet, light, whole on every screen and on paper, without a finding of axe in two ways."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size(WIDE)
    open_page(page, site, name)
    sent = sum(weight(html, answer.url) for answer in answers)
    assert sent <= MB, f"{sent} bytes as a web server sends them"

    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    for size in HUGE, WIDE, NARROW:
        page.set_viewport_size(size)
        assert overflow(page) <= 0, size
        page.evaluate(TWO_FRAMES)  # in which page.js measures what shall scroll
        assert page.evaluate(CUT_OFF) == [], size
    page.wait_for_function(SCROLLED)
    assert page.evaluate(WIDE_IN_A_TABLE) == []
    page.emulate_media(media="print")
    assert page.evaluate(TORN) == []
    page.emulate_media(media="screen")

    if not AXE.is_file():
        pytest.skip("the page is whole; axe-core is not here for the rest (npm brings it)")
    page.evaluate(AXE.read_text())
    page.evaluate(SIMPLIFY, name == CODE)
    found = {}  # a wide page has all parts of it, a narrow one hides some behind buttons
    for size, theme, rules in (WIDE, "light", []), (NARROW, "dark", ["color-contrast"]):
        page.set_viewport_size(size)
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        found[theme] = page.evaluate(RUN_AXE, rules)
    assert not any(found.values()), json.dumps(found, indent=1)


def weight(html: Path, url: str) -> int:
    """Bytes of a file as a web server sends it."""
    content = (html / unquote(urlsplit(url).path.lstrip("/"))).read_bytes()
    return len(content) if url.endswith(".woff2") else len(gzip.compress(content))


def test_text_stays_where_it_is_when_its_type_comes(page: Page, site: str) -> None:
    """On average: a paragraph may have a line more or less, and where is the luck of the page."""
    held: list[Route] = []
    page.route("**/fonts/source-*", lambda route: held.append(route))
    shifts = []
    for name in "book/index", "book/idea/convolution", "book/mnist/accelerated", "book/speed/cpu":
        for size in WIDE, NARROW:
            page.set_viewport_size(size)
            page.goto(f"{site}/{name}.html", wait_until="domcontentloaded")
            page.evaluate("window.MathJax?.startup.promise")
            page.evaluate(TWO_FRAMES)
            assert page.evaluate("document.fonts.status") == "loading"
            page.evaluate(COUNT_SHIFTS)
            while page.evaluate("document.fonts.status") == "loading":
                while held:
                    held.pop().continue_()
            page.evaluate(TWO_FRAMES)
            shifts.append(page.evaluate("shifted"))
    assert sum(shifts) / len(shifts) < 0.05, shifts


def test_a_formula_is_heard(page: Page, site: str) -> None:
    open_page(page, site, "book/idea/backward")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("MathMLMath") > 50
    assert {"MathMLFraction", "MathMLIdentifier", "MathMLSquareRoot"} <= set(roles)


def test_search_finds_a_term(page: Page, site: str) -> None:
    open_page(page, site, "book/index")
    page.keyboard.press("Control+K")
    page.keyboard.type("whitening")
    page.keyboard.press("Enter")
    results = page.locator("#search-results li a")
    expect(results.filter(has_text="Why normalize?").first).to_be_visible()


def test_the_color_mode_can_be_chosen_and_stays(page: Page, site: str) -> None:
    open_page(page, site, "book/idea/why")
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {page.evaluate(background)}
    for _ in range(2):
        button = page.locator(".theme-switch-button:visible")
        button.press("Enter")
        expect(button).to_be_focused()
        mode = page.evaluate("document.documentElement.dataset.mode")
        expect(button).to_have_accessible_name(f"Color mode: {mode}")
        seen.add(page.evaluate(background))
    assert len(seen) == 2
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == chosen


def test_contents_on_a_phone_close_when_they_have_led_somewhere(page: Page, site: str) -> None:
    page.set_viewport_size(NARROW)
    open_page(page, site, "book/idea/why")
    page.locator(".secondary-toggle:visible").click()
    drawer = page.locator("#pst-secondary-sidebar-modal")
    expect(drawer).to_be_visible()
    drawer.get_by_role("link", name="Why not whiten?").click()
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("heading", name="Why not whiten?")).to_be_in_viewport()


def test_a_dark_page_prints_light(page: Page, site: str) -> None:
    page.emulate_media(color_scheme="dark")
    open_page(page, site, "book/idea/transform")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 36, 44)"
    for hidden in (
        ".bd-sidebar-primary",
        ".bd-header-article",
        ".prev-next-footer",
        ".bn-controls",
    ):
        expect(page.locator(hidden).first).to_be_hidden()


def test_the_keyboard_alone_goes_through_a_chapter(page: Page, site: str) -> None:
    """Tab reaches everything that can be pressed, in the order of the page, and leaves it again."""
    open_page(page, site, "book/idea/convolution")
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        key = page.evaluate(
            """() => {
              const one = document.activeElement;
              if (one === document.body) return null;
              one.dataset.reached = "yes";
              return one.tagName;
            }"""
        )
        if key is None:
            break
        reached.add(key)
    missed = page.evaluate(
        """() => [...document.querySelectorAll("article :is(a[href], button, summary, input)")]
          .filter((one) => one.checkVisibility({visibilityProperty: true}))
          .filter((one) => !one.disabled && one.type !== "radio" && !one.dataset.reached)
          .map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert not missed
    assert reached >= {"A", "BUTTON", "SUMMARY", "INPUT"}
    assert key is None, "the keyboard does not leave the page"
