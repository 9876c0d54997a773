"""The page in headless Chromium: no errors, nothing wider than the screen, nothing that runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sase_ray.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which root may not have in a container.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def look_at(browser, page: Path, width: int, scheme: str):
    """Open a page; return what it complained of, what it asked for, and measurements."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.set_default_timeout(120_000)  # milliseconds, for a machine with much else to do
    complaints, asked = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append("dialog"), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    measured = tab.evaluate(
        """() => ({
            width: document.documentElement.scrollWidth,
            colour: getComputedStyle(document.body).backgroundColor,
            ink: getComputedStyle(document.querySelector('svg text')).fill,
            text: document.querySelector('svg text').getBoundingClientRect().height,
            sections: document.querySelectorAll('section').length,
            cut: [...document.querySelectorAll('figure.wide .scroll')].filter(
                e => e.querySelector('table') && e.scrollWidth > e.clientWidth
                    && (innerWidth > 1000 || e.querySelector('table.facts'))).length,
            broken: [...document.querySelectorAll('table.facts td:first-child')].map(td => {
                const words = document.createRange();
                words.selectNodeContents(td);
                return td.innerText.split(' ').length < words.getClientRects().length;
            }).filter(Boolean).length,
        })"""
    )
    tab.screenshot(path=page.with_name(f"{page.stem}-{width}-{scheme}.png"), full_page=True)
    tab.close()
    others = [url for url in asked if url != page.as_uri() and not url.startswith("data:")]
    return complaints, others, measured


def test_the_page_on_phones_and_desks_by_day_and_night(browser, make_run, reference):
    made = write_report([make_run(renamed={"tpe": "<script>alert(1)</script>" + "x" * 60})])
    short = write_report([reference], output=made.with_name("reference.html"))
    colours = {}
    for page in (made, short):
        for width in (390, 1280):
            for scheme in ("light", "dark"):
                complaints, others, measured = look_at(browser, page, width, scheme)
                where = f"{page.name} at {width} pixels, {scheme}"
                assert complaints == [], where
                assert others == [], where
                assert measured["width"] <= width, where
                assert measured["sections"] >= 8, where
                assert measured["text"] >= 6, where
                if page == short:
                    assert measured["cut"] == 0, f"a table is cut off: {where}"
                    assert measured["broken"] == 0, f"a word is broken: {where}"
                colours[scheme] = measured["colour"], measured["ink"]
    assert colours["light"] == ("rgb(255, 255, 255)", "rgb(26, 26, 26)")
    assert colours["dark"] == ("rgb(22, 24, 28)", "rgb(232, 232, 232)")
