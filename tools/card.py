"""Draw what others show beside a link to the book, and the icon that phones show.

python tools/card.py writes card.svg, card.png and apple-touch-icon.png in book/assets. The curves
are those of the chapter on figure 1, as its stored output has them.
"""

import json
import re
from pathlib import Path

from pdf import BROWSER, FLAGS
from playwright.sync_api import sync_playwright

from bnlib.figures import GRID, INK, MUTED, PAPER, WITH_BN, WITHOUT_BN

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "book" / "assets"
WIDTH, HEIGHT = 1200, 630  # pixels, as those who show it ask for
ICON = 180

# In the chapter's figure: 0 and 20,000 training steps, and the accuracies 70 and 100 percent.
LEFT, RIGHT, BOTTOM, TOP = 66.138046, 216.942417, 229.398739, 21.558281
# The same on the card.
PLOT_LEFT, PLOT_BOTTOM, PLOT_TOP = 80, 590, 262

CARD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" \
font-family="Source Sans, sans-serif">
<style>@font-face {{ font-family: "Source Sans"; font-weight: 200 900; \
src: url("fonts/source-sans-3-latin-wght-normal.woff2"); }}</style>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>
<rect width="{WIDTH}" height="14" fill="{WITH_BN}"/>
<text x="76" y="128" font-size="86" font-weight="700" letter-spacing="-2" fill="{INK}">\
Batch Normalization</text>
<text x="80" y="190" font-size="34" fill="{MUTED}">\
Every equation is code you can run, every claim a test that can fail.</text>
%s
<text x="160" y="312" font-size="30" font-weight="700" fill="{WITH_BN}">\
with BatchNorm</text>
<text x="360" y="434" font-size="30" font-weight="700" fill="{WITHOUT_BN}">without</text>
<text x="1120" y="572" text-anchor="end" font-size="24" fill="{MUTED}">\
test accuracy on MNIST over the first 20,000 training steps</text>
</svg>
"""


def card() -> str:
    scale = (PLOT_BOTTOM - PLOT_TOP) / 30  # pixels per percent
    lines = [
        f'<path d="M{PLOT_LEFT},{(y := PLOT_BOTTOM - scale * (percent - 70)):.0f}H{WIDTH}" '
        f'stroke="{GRID}" stroke-width="2"/>'
        f'<text x="{PLOT_LEFT - 12}" y="{y + 8:.0f}" text-anchor="end" font-size="22" '
        f'fill="{MUTED}">{percent}</text>'
        for percent in (80, 90, 100)
    ]
    lines.append(
        f'<svg x="{PLOT_LEFT}" y="{PLOT_TOP}" width="{WIDTH - PLOT_LEFT}" '
        f'height="{PLOT_BOTTOM - PLOT_TOP}" preserveAspectRatio="none" '
        f'viewBox="{LEFT} {TOP} {RIGHT - LEFT:.3f} {BOTTOM - TOP:.3f}">'
    )
    for path, style in curves():
        look = (
            f'stroke="{style[1]}" stroke-width="5" fill="none" vector-effect="non-scaling-stroke"'
        )
        if style[0] == "fill":
            look = f'fill="{style[1]}" fill-opacity="0.2"'
        points = re.sub(
            r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", " ".join(path.split())
        )
        lines.append(f'<path d="{points}" {look}/>')
    return CARD % "\n".join([*lines, "</svg>"])


def curves() -> list[tuple[str, tuple[str, str]]]:
    """Bands and lines of the chapter's figure: the path, and what of it has which color."""
    notebook = json.loads((ROOT / "book/mnist/figure-1.ipynb").read_text(encoding="utf-8"))
    (svg,) = (
        "".join(output["data"]["image/svg+xml"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output.get("metadata", {}).get("scrapbook", {}).get("name") == "accuracy"
    )
    found = re.findall(rf'd="([^"]+)" clip-path[^>]+(fill|stroke): ({WITH_BN}|{WITHOUT_BN});', svg)
    assert len(found) == 4, found
    return [(path, (part, color)) for path, part, color in found]


def main() -> None:
    (ASSETS / "card.svg").write_text(card(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        tab = browser.new_page()
        for source, target, width, height in (
            ("card.svg", "card.png", WIDTH, HEIGHT),
            ("favicon.svg", "apple-touch-icon.png", ICON, ICON),
        ):
            tab.set_viewport_size({"width": width, "height": height})
            tab.goto((ASSETS / source).as_uri())
            tab.screenshot(path=ASSETS / target)
        browser.close()


if __name__ == "__main__":
    main()
