"""The page in the eyes of axe-core: names and roles for screen readers, keyboard, contrast; light, dark, on a phone."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from driving import PHONE, WIDE, Site, edit, opened
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

LOOKS = {
    "wide, light": {"viewport": WIDE, "color_scheme": "light"},
    "wide, dark": {"viewport": WIDE, "color_scheme": "dark"},
    "phone, light": {"viewport": PHONE, "has_touch": True, "is_mobile": True, "color_scheme": "light"},
    "phone, dark": {"viewport": PHONE, "has_touch": True, "is_mobile": True, "color_scheme": "dark"},
}


def findings(page: Page) -> list[str]:
    """What axe-core holds to be serious or critical, one line for each part of the page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations)")
    return [
        f"{violation['id']} ({violation['impact']}): {node['html'][:160]} | {_summary(node)}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def _summary(node: dict[str, Any]) -> str:
    return " ".join(node["failureSummary"].split())[:240]


def unfold_all(page: Page) -> None:
    """Open what is folded, so that nothing is left out."""
    for button in page.locator("button.label-wrap:not(.open)").all():
        if button.is_visible():
            button.click()


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_serious_stands_in_anyones_way(chromium: Browser, site: Site, look: str) -> None:
    with opened(chromium, site.url, **LOOKS[look]) as page:
        unfold_all(page)
        assert "\n".join(findings(page)) == ""
        edit(page)
        assert "\n".join(findings(page)) == ""
