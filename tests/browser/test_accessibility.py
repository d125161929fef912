"""The page in the eyes of axe-core: names and roles for screen readers, keyboard, contrast; light, dark, on a phone."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from page_object import PHONE, WIDE, PageObject, Site, Windows

pytestmark = pytest.mark.browser

SCREENS = {"wide": {"viewport": WIDE}, "phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True}}


def findings(page: PageObject, **options: Any) -> list[str]:
    """What axe-core holds to be serious or critical, one line for each part of the page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    run = "options => axe.run(document, { resultTypes: ['violations'], ...options }).then(found => found.violations)"
    violations = page.evaluate(run, options)
    return [
        f"{violation['id']} ({violation['impact']}): {node['html'][:160]} | {_summary(node)}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def _summary(node: dict[str, Any]) -> str:
    return " ".join(node["failureSummary"].split())[:240]


def unfold_all(page: PageObject) -> None:
    """Open what is folded, so that nothing is left out."""
    for button in page.locator("button.label-wrap:not(.open)").all():
        if button.is_visible():
            button.click()


SEEN = """async (disabled) => {
    const button = document.getElementById("edit");
    const seen = () => {
        const { color, backgroundColor, opacity, filter } = getComputedStyle(button);
        return [color, backgroundColor, opacity, filter];
    };
    seen();
    button.disabled = disabled;
    const atOnce = seen();
    await Promise.all(document.getAnimations().map((animation) => animation.finished));
    return [atOnce, seen()];
}"""


def contrast(*colours: str) -> float:
    """Contrast of two opaque colours, "rgb(…)", as WCAG 2 has it."""
    darker, lighter = sorted(map(_luminance, colours))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_serious_stands_in_anyones_way(windows: Windows, site: Site, screen: str) -> None:
    """In dark colors only these can be wrong; the rest is the same. A button is readable in every state."""
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        with windows.open(site.url, **SCREENS[screen], color_scheme=scheme) as page:
            for disabled in (True, False):
                at_once, at_last = page.evaluate(SEEN, disabled)
                assert at_once == at_last, "it fades: half way its label is pale"
                assert at_last[2:] == ["1", "none"]
                assert contrast(*at_last[:2]) >= 4.5
            unfold_all(page)
            assert "\n".join(findings(page, **options)) == "", scheme
            page.edit()
            assert "\n".join(findings(page, **options)) == "", scheme


def test_in_the_system_s_colours_one_sees_what_is_chosen(windows: Windows, site: Site) -> None:
    """What is told from something else by its background has another one there, too."""
    with windows.open(site.url, forced_colors="active") as page:
        page.edit()
        background = "part => getComputedStyle(part).backgroundColor"
        pairs = [
            (page.button("Brush"), page.button("Eraser")),
            (page.button("Edit"), page.button("Generate")),
            (page.button("Keep"), page.button("Discard")),
            (page.locator("#how-many label.selected"), page.locator("#how-many label:not(.selected)").first),
            (page.locator(".ib-fill"), page.locator(".ib-track")),
        ]
        for chosen, other in pairs:
            assert chosen.evaluate(background) != other.evaluate(background), chosen
        assert page.evaluate("getComputedStyle(document.querySelector('.sp-slider'), '::before').backgroundColor") == (
            page.button("Brush").evaluate(background)
        )
