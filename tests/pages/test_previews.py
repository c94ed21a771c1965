"""What a link leads to, shown beside it."""

import pytest
from playwright.sync_api import Locator, Page, expect

BOX = "#bn-preview"


@pytest.fixture
def chapter(page: Page, site: str) -> Page:
    page.goto(f"{site}/book/idea/inference.html")
    return page


def link(page: Page, address: str) -> Locator:
    return page.locator(f'.bd-article a.internal[href="{address}"]:not(.headerlink)').first


def test_an_equation_of_the_same_page_and_of_another(chapter: Page) -> None:
    box = chapter.locator(BOX)
    for address in "#equation-eq-unbiased", "why.html#equation-eq-error-of-mean":
        link(chapter, address).hover()
        expect(box.locator(".math mjx-container")).to_be_visible()
        expect(box.locator("math")).to_be_attached()  # for a screen reader
        expect(link(chapter, address)).to_have_attribute("aria-describedby", "bn-preview")
        assert "\\frac" not in box.inner_text()
        chapter.keyboard.press("Escape")
        expect(box).to_be_hidden()
        assert link(chapter, address).get_attribute("aria-describedby") is None


def test_a_reference_stays_while_the_mouse_is_on_it(chapter: Page) -> None:
    box = chapter.locator(BOX)
    chapter.locator('.bd-article a[href*="bibliography.html#"]').first.hover()
    expect(box.get_by_role("link")).to_have_attribute("tabindex", "-1")
    chapter.clock.install()
    box.hover()
    chapter.clock.run_for(1000)
    expect(box).to_contain_text("https://")
    expect(box).to_be_visible()
    chapter.locator(".bd-article h1").hover()
    chapter.clock.run_for(1000)
    expect(box).to_be_hidden()


def test_a_theorem_brings_no_id_twice(chapter: Page) -> None:
    link(chapter, "#alg-inference").evaluate("(a) => a.setAttribute('href', '#thm-fold')")
    link(chapter, "#thm-fold").hover()
    expect(chapter.locator(f"{BOX} > .theorem mjx-container").first).to_be_visible()
    assert chapter.locator("#equation-eq-fold").count() == 1
    assert chapter.locator(f"{BOX} :is([id], .headerlink, details)").count() == 0


def test_by_keyboard(chapter: Page) -> None:
    target = link(chapter, "#equation-eq-fold")
    target.focus()
    chapter.keyboard.press("Shift+Tab")
    chapter.keyboard.press("Tab")
    expect(target).to_be_focused()
    expect(chapter.locator(BOX)).to_be_visible()
    chapter.keyboard.press("Escape")
    expect(chapter.locator(BOX)).to_be_hidden()
    expect(target).to_be_focused()
    chapter.keyboard.press("Enter")
    chapter.wait_for_url("**#equation-eq-fold")


def test_a_narrow_page_is_not_widened(chapter: Page) -> None:
    chapter.set_viewport_size({"width": 360, "height": 700})
    for address in "#alg-inference", "why.html#equation-eq-error-of-mean", "#equation-eq-merge":
        link(chapter, address).hover()
        box = chapter.locator(BOX)
        expect(box).to_be_visible()
        sides = box.bounding_box()
        assert sides["x"] >= 0 and sides["x"] + sides["width"] <= 360
        assert chapter.evaluate("document.documentElement.scrollWidth") <= 360
        chapter.keyboard.press("Escape")


def test_no_preview_where_there_is_nothing_to_show(chapter: Page) -> None:
    chapter.locator(".bn-source > summary").first.click()
    with chapter.expect_response("**/api.html"):
        chapter.locator('.bn-source[open] a[href*="api.html#"]').first.hover()
    expect(chapter.locator(BOX)).to_be_hidden()
    link(chapter, "#equation-eq-merge").hover()
    expect(chapter.locator(f"{BOX} > .math")).to_be_visible()


def test_touch_and_print_have_none(chapter: Page) -> None:
    chapter.clock.install()
    box, target = chapter.locator(BOX), link(chapter, "#equation-eq-unbiased")
    for pointer, shown in ("touch", False), ("mouse", True):
        target.dispatch_event("pointerover", {"pointerType": pointer})
        chapter.clock.run_for(1000)
        assert box.evaluate("(box) => !box.hidden") == shown
    expect(box).to_be_visible()
    chapter.emulate_media(media="print")
    expect(box).to_be_hidden()
