"""The public endpoints, called over HTTP as other programs do, and as MCP tools."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import hat_model
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_server import served
from PIL import Image
from tiny_models import tiny_pipeline

from imagebart.imaging.files import read_recipe
from imagebart.pipeline import Pipeline
from imagebart.sampling.sampler import ChainEvent, ChainState

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(hat_model())


@pytest.fixture(scope="module")
def client(pipe: Pipeline) -> Iterator[Client]:
    with served(pipe) as url:
        yield Client(url, verbose=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_endpoints_are_public_and_described(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)
    named = described["named_endpoints"]
    assert not described["unnamed_endpoints"]
    assert {name: [p["parameter_name"] for p in about["parameters"]] for name, about in named.items()} == {
        "/edit": ["image", "mask", "area", "prompt", "seed", "guidance", "scales", "exact"],
        "/generate": ["prompt", "seed", "guidance", "scales"],
        "/vary": ["image", "strength", "prompt", "seed", "guidance", "scales"],
        "/suggest_mask": ["image", "prompt"],
        "/describe": ["image"],
    }
    for about in named.values():
        required = [p["parameter_name"] for p in about["parameters"] if not p["parameter_has_default"]]
        assert required in ([], ["image"], ["image", "prompt"])


def test_a_mask_is_found_by_words_and_serves_an_edit(client: Client, pipe: Pipeline, image: Path) -> None:
    given = {"image": handle_file(str(image)), "prompt": "a hat"}
    mask = client.predict(**given, api_name="/suggest_mask")
    assert (pixels(mask)[..., 0] == np.asarray(pipe.suggest_mask(image, "a hat"))).all()
    result = client.predict(**given, mask=handle_file(mask), exact=True, api_name="/edit")
    changed = (pixels(result) != pixels(image)).any(axis=-1)
    assert changed.any() and not changed[pixels(mask)[..., 0] == 0].any()
    with pytest.raises(AppError, match="Without words"):
        client.predict(handle_file(str(image)), "", api_name="/suggest_mask")
    with pytest.raises(AppError, match="cannot say what"):
        client.predict(handle_file(str(image)), api_name="/describe")


def test_an_edit_streams_and_keeps_what_is_not_painted(client: Client, image: Path) -> None:
    job = client.submit(
        image=handle_file(str(image)), mask=None, area="lower half", prompt="hat", seed=3, exact=True, api_name="/edit"
    )
    answers = list(job)
    assert len(answers) >= 3
    assert answers[-1].endswith("edit-3.png")
    before, after = pixels(image), pixels(answers[-1])
    assert (after[:22] == before[:22]).all() and (after[22:] != before[22:]).any()


def test_a_mask_file_says_what_to_redraw(client: Client, image: Path, tmp_path: Path) -> None:
    mask = Image.new("L", (60, 45))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "mask.png")
    result = client.predict(
        image=handle_file(str(image)),
        mask=handle_file(str(tmp_path / "mask.png")),
        area="everything",
        prompt="",
        seed=None,
        exact=True,
        api_name="/edit",
    )
    changed = (pixels(result) != pixels(image)).any(axis=-1)
    assert changed[10:30, 10:30].any()
    changed[10:30, 10:30] = False
    assert not changed.any()


def test_the_result_says_how_it_was_made(client: Client, image: Path) -> None:
    result = client.predict(image=handle_file(str(image)), area="border", prompt="hat", api_name="/edit")
    recipe = read_recipe(result)
    assert recipe is not None
    assert (recipe.task, recipe.prompt, recipe.model) == ("edit", "hat", "tiny")
    assert result.endswith(f"edit-{recipe.seed}.png")


def test_a_variation_is_near_or_far(client: Client, image: Path) -> None:
    """The share of tokens that differ from the image's own, after either."""
    near = client.predict(image=handle_file(str(image)), strength=0.05, seed=1, api_name="/vary")
    far = client.predict(handle_file(str(image)), 1, "a hat", 1, api_name="/vary")
    assert pixels(near).shape == pixels(far).shape == (45, 60, 3)
    assert read_recipe(near).strength == 0.05  # type: ignore[union-attr]
    assert (pixels(near) != pixels(far)).any()


def test_guidance_is_the_models_own_or_the_given_one(client: Client, pipe: Pipeline) -> None:
    for guidance in (None, 6):
        result = client.predict(prompt="a hat", seed=5, guidance=guidance, api_name="/generate")
        settings = pipe.defaults.replace(guidance=guidance or pipe.defaults.guidance)
        assert read_recipe(result).settings == settings  # type: ignore[union-attr]
        assert (pixels(result) == np.asarray(list(pipe.generate("a hat", seed=5, settings=settings))[-1].image)).all()


def test_scales_are_the_models_own_or_the_given_ones(client: Client, image: Path) -> None:
    for scales, steps in ((None, 2), (3, 3)):
        job = client.submit(prompt="a hat", seed=5, scales=scales, api_name="/generate")
        recipe = read_recipe(list(job)[-1])
        assert recipe is not None and recipe.settings.scales == steps
    for name, asked in {"/edit": {"area": "centre"}, "/vary": {"strength": 1}}.items():
        image_of_one = client.predict(image=handle_file(str(image)), scales=1, api_name=name, **asked)
        assert read_recipe(image_of_one).settings.scales == 1  # type: ignore[union-attr]


def test_cancel_stops_the_model_and_frees_it(client: Client, pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, int] = {}
    stream = pipe.model.sampler.stream

    def counted(start: ChainState, *rest: Any) -> Iterator[ChainEvent]:
        seed = start.generators[0].initial_seed()
        for event in stream(start, *rest):
            drawn[seed] = drawn.get(seed, 0) + 1
            time.sleep(0.02)  # time to press Cancel
            yield event

    monkeypatch.setattr(pipe.model.sampler, "stream", counted)
    job = client.submit(prompt="a hat", seed=0, api_name="/generate")
    for _ in job:
        job.cancel()
        break
    client.predict(prompt="a hat", seed=1, api_name="/generate")  # waits for its turn
    assert drawn[0] < drawn[1]


def test_a_seed_repeats(client: Client) -> None:
    first = client.predict(prompt="a hat", seed=None, api_name="/generate")
    seed = int(Path(first).stem.split("-")[-1])
    again = client.predict(prompt="a hat", seed=seed, api_name="/generate")
    assert (pixels(first) == pixels(again)).all()


def test_the_readmes_client_runs_as_written(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Less the port, and on a tiny model."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "gradio_client" in block]
    address = "http://127.0.0.1:7860"
    assert address in block
    monkeypatch.chdir(ROOT)
    exec(compile(block.replace(address, client.src), "README.md", "exec"), {})
    recipe = read_recipe(capsys.readouterr().out.splitlines()[-1])
    assert recipe is not None and recipe.prompt == "a red hat"


def test_bad_input_is_one_sentence(client: Client, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "words.png"
    path.write_text("not an image")
    with pytest.raises(AppError, match="we can read"):
        client.predict(image=handle_file(str(path)), area="centre", api_name="/edit")
    with pytest.raises(AppError, match="strength is 2"):
        client.predict(image=handle_file(str(image)), strength=2, api_name="/vary")
    with pytest.raises(AppError, match="guidance is -1"):
        client.predict(guidance=-1, api_name="/generate")
    with pytest.raises(AppError, match="scales is 1.5"):
        client.predict(scales=1.5, api_name="/generate")


def test_the_endpoints_are_tools() -> None:
    anyio = pytest.importorskip("anyio")
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamablehttp_client

    async def ask(url: str) -> tuple[dict[str, object], list[Any]]:
        async with streamablehttp_client(url) as (read, write, _), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answer = await session.call_tool("generate", {"prompt": "a hat", "seed": 1})
            return tools, answer.content

    pipeline = tiny_pipeline()
    with served(pipeline, mcp_server=True) as url:
        tools, said = anyio.run(ask, f"{url}gradio_api/mcp/")
    assert set(tools) == {"describe", "edit", "generate", "suggest_mask", "vary"}, "and nothing of the page itself"
    edit = tools["edit"]
    assert edit.description.startswith("Regenerate a part of an image")  # type: ignore[attr-defined]
    properties = edit.inputSchema["properties"]  # type: ignore[attr-defined]
    assert edit.inputSchema["required"] == ["image"]  # type: ignore[attr-defined]
    assert all(about.get("description") for about in properties.values())
    assert "border" in properties["area"]["description"]
    answer, address = said
    with Image.open(io.BytesIO(base64.b64decode(answer.data))) as image:
        *_, result = pipeline.generate("a hat", seed=1)
        assert answer.mimeType == "image/png" and (np.asarray(image) == np.asarray(result.image)).all()
    assert address.text.startswith(f"Image URL: {url}") and address.text.endswith("generate-1.png")
