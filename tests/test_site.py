"""The built site, walked in a browser as wide as a phone: no dead link, no missing picture, nothing wider than the screen."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SITE = Path(os.environ.get("DEPTHTOKENS_SITE", Path(__file__).parents[1] / "docs" / "_build" / "html"))
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PHONE = {"width": 390, "height": 844}

FOUND = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(link => link.href),
    ids: [...document.querySelectorAll('[id]')].map(element => element.id),
    missing: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
    wide: document.documentElement.scrollWidth,
})"""


@pytest.mark.docs
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built: make docs")
def test_every_page_on_a_phone():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=PHONE)
        todo, seen = [(SITE / "index.html").as_uri()], {}
        while todo:
            address = todo.pop()
            if address in seen or not address.endswith(".html"):
                continue
            page.goto(address)
            page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
            page.wait_for_load_state("load")
            seen[address] = page.evaluate(FOUND)
            todo += [link.partition("#")[0] for link in seen[address]["links"] if link.startswith("file:")]
        browser.close()
    names = {Path(address).name for address in seen}
    assert names >= {"index.html", "want.html", "paper.html", "camera.html", "depth.html", "changelog.html"}
    for address, found in seen.items():
        assert not found["missing"], (address, found["missing"])
        assert found["wide"] <= PHONE["width"], (address, found["wide"])
        for link in found["links"]:
            target, _, anchor = link.partition("#")
            if not link.startswith("file:"):
                continue
            assert Path(target.removeprefix("file://")).is_file(), f"{address}: dead link {link}"
            assert not anchor or target not in seen or anchor in seen[target]["ids"], f"{address}: {link} leads nowhere on its page"
