"""Running pages on tiny random models, one for each configuration, and a browser with windows of them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_models import HeldPipeline, WatchedPipeline
from page_object import MANY_STAGES, PIPELINE, PageObject, Site, Windows, gradient_image, served_with_examples
from playwright.sync_api import sync_playwright
from tiny_models import tiny_model, tiny_staged_model

from imagebart.imaging.masks import preset


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> None:
    """A page that is broken is reported soon: once two tests have failed, the others wait less."""
    if request.session.testsfailed > 1:
        Windows.patience = 10_000


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two examples, the first with a mask and a prompt."""
    examples = tmp_path_factory.mktemp("examples")
    gradient_image((40, 40), 0).save(examples / "01-first.png")
    preset("center", (40, 40)).save(examples / "01-first.mask.png")
    (examples / "01-first.txt").write_text("a hat", encoding="utf-8")
    gradient_image((48, 40), 200).save(examples / "02-second.png")
    return examples


@pytest.fixture(scope="session")
def site(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page, with two more models to switch to."""
    models = tmp_path_factory.mktemp("models")
    for number, (name, conditioning) in enumerate({"animals": "class", "plain": "none"}.items(), 1):
        tiny_model(conditioning).save_pretrained(models / name)
        (models / name / "examples").mkdir()
        example = models / name / "examples" / f"{name}-{number}.png"
        gradient_image((32, 32), 60 * number).save(example)
        preset("center", (32, 32)).save(example.with_suffix(".mask.png"))
    with served_with_examples(PIPELINE, examples, models) as site:
        yield site


@pytest.fixture(scope="session")
def shared_slow_site(examples: Path) -> Iterator[Site]:
    with served_with_examples(WatchedPipeline(tiny_staged_model("text", MANY_STAGES)), examples) as site:
        yield site


@pytest.fixture
def slow_site(shared_slow_site: Site) -> Site:
    """The page with a model whose runs take a while: a second, or as long as the test says."""
    shared_slow_site.pipeline.pause = 0.05
    return shared_slow_site


@pytest.fixture(scope="session")
def held_site(examples: Path) -> Iterator[Site]:
    """The page with a model that is held; whoever asks for it asks for `held`, too."""
    with served_with_examples(HeldPipeline(tiny_model()), examples) as site:
        yield site


@pytest.fixture
def held(held_site: Site) -> Iterator[HeldPipeline]:
    """A model that the test lets go, with nothing noted of other tests."""
    pipeline = held_site.pipeline
    assert isinstance(pipeline, HeldPipeline)
    pipeline.hold()
    yield pipeline
    pipeline.release()


# For this package alone: Playwright keeps an event loop running in this thread, and other tests run their own.
@pytest.fixture(scope="package")
def windows() -> Iterator[Windows]:
    """The browser."""
    path = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("There is no Chromium: `make test` installs one, or name it in IMAGEBART_CHROMIUM.")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
    ):
        yield Windows(browser)


@pytest.fixture
def wide(windows: Windows, site: Site) -> Iterator[PageObject]:
    """The page in a wide window."""
    with windows.open(site.url) as page:
        yield page


@pytest.fixture
def gradients(tmp_path: Path) -> Path:
    """An upload that is no square."""
    path = tmp_path / "upload.png"
    gradient_image((64, 32), 33).save(path)
    return path
