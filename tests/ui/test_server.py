"""The page's server as other programs meet it: endpoints, tools, turns at the model, and what SECURITY.md promises."""

import base64
import io
import ipaddress
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from fake_models import WatchedPipeline, hat_model
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from page_server import served
from page_values import noise_image, open_image
from PIL import Image

from imagebart.imaging.files import read_recipe
from imagebart.imaging.masks import preset
from imagebart.pipeline import PipelineEvent
from imagebart.ui.files import publish
from imagebart.ui.page import MAX_QUEUE

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0  # seconds, on a busy machine
UPLOADED = "uploaded"
ABROAD: list[tuple[str, Any]] = []  # what this process asked of other machines while WATCHED
WATCHED = Event()


class HeldPipeline(WatchedPipeline):
    """Notes what runs do, by their seeds; holds them from `hold` on until `released`; one "for ever" never ends."""

    def __init__(self) -> None:
        super().__init__(hat_model())
        self.log: list[tuple[int | None, str]] = []
        self.released = Event()
        self.released.set()

    def hold(self) -> None:
        self.log.clear()
        self.released.clear()

    def note(self, what: str, seed: int | None) -> None:
        super().note(what, seed)
        self.log.append((seed, what))
        self.released.wait(PATIENCE)

    def generate(self, prompt: Any, **options: Any) -> Iterator[PipelineEvent]:
        if prompt != "for ever":
            return super().generate(prompt, **options)
        return self._watched(self._repeated(next(super().generate("", **options))), options["seed"])

    def _repeated(self, event: PipelineEvent) -> Iterator[PipelineEvent]:
        while True:
            yield event
            time.sleep(0.05)


class PageClient:
    """Requests to a page as a program makes them, and an image that was uploaded to it, UPLOADED in their data."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url, self.http = url, http
        file = io.BytesIO()
        Image.new("RGB", (48, 40), "red").save(file, "PNG")
        (self.image,) = http.post("gradio_api/upload", files={"files": ("image.png", file.getvalue())}).json()

    def ask(self, name: str, data: list[Any]) -> str:
        """Calls an endpoint; the number of the request."""
        upload = {"path": self.image, "meta": {"_type": "gradio.FileData"}}
        given = [upload if value == UPLOADED else value for value in data]
        return self.http.post(f"gradio_api/call/{name}", json={"data": given}).json()["event_id"]

    def generate(self, seed: int, prompt: str = "a hat") -> str:
        return self.ask("generate", [prompt, seed, None, None])

    @contextmanager
    def listening(self, request: str, name: str = "generate") -> Iterator[Iterator[str]]:
        """The events of a request, line by line; leaving hangs up."""
        with self.http.stream("GET", f"gradio_api/call/{name}/{request}") as stream:
            yield stream.iter_lines()

    def answer(self, request: str, name: str = "generate") -> str:
        with self.listening(request, name) as lines:
            return "\n".join(lines)

    def call(self, name: str, data: list[Any]) -> str:
        return self.answer(self.ask(name, data), name)

    def waiting(self) -> int:
        """How many requests wait for the model."""
        return self.http.get("gradio_api/queue/status").json()["queue_size"]


def watch(event: str, values: tuple[Any, ...]) -> None:
    """Notes names that are looked up and addresses that are connected to, but for those of this machine."""
    if WATCHED.is_set() and event in ("socket.getaddrinfo", "socket.connect", "socket.sendto", "socket.gethostbyname"):
        host = values[1][0] if event in ("socket.connect", "socket.sendto") else values[0]
        host = host.decode() if isinstance(host, bytes) else host
        try:
            at_home = not host or host in ("localhost", "0.0.0.0", "::") or ipaddress.ip_address(host).is_loopback
        except ValueError:
            at_home = False
        if not at_home:
            ABROAD.append((event, host))


@pytest.fixture(scope="module")
def pipe() -> HeldPipeline:
    return HeldPipeline()


@pytest.fixture(scope="module")
def page(pipe: HeldPipeline) -> Iterator[PageClient]:
    """A page whose process is watched from its start to its end."""
    sys.addaudithook(watch)
    WATCHED.set()
    with served(pipe, mcp_server=True) as url, httpx.Client(base_url=url, timeout=PATIENCE) as http:
        assert ABROAD == [], "the page asks other machines as it starts"
        yield PageClient(url, http)
    WATCHED.clear()


@pytest.fixture(scope="module")
def client(page: PageClient) -> Client:
    return Client(page.url, verbose=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise_image((60, 45)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


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


SETTINGS = {"scales": 3, "guidance": 6.0}
MASK = Image.new("L", (60, 45))
MASK.paste(255, (10, 10, 30, 30))
AREA = preset("lower half", MASK.size)


@pytest.mark.parametrize(
    ("name", "asked", "draw"),
    [
        ("edit", {"area": "lower half"}, lambda pipe, image, **o: pipe.edit(image, AREA, movable=True, **o)),
        ("edit", {"exact": True, **SETTINGS}, lambda pipe, image, **o: pipe.edit(image, MASK, exact=True, **o)),
        ("vary", {"strength": 0.3, **SETTINGS}, lambda pipe, image, **o: pipe.vary(image, 0.3, **o)),
        ("generate", SETTINGS, lambda pipe, _, **o: pipe.generate(**o)),
        ("generate", {"seed": None}, lambda pipe, _, **o: pipe.generate(**o)),
    ],
)
def test_an_endpoint_streams_what_the_library_draws(
    client: Client, pipe: HeldPipeline, image: Path, name: str, asked: dict[str, Any], draw: Callable[..., Any]
) -> None:
    files = {} if name == "generate" else {"image": handle_file(str(image))}
    if "exact" in asked:
        MASK.save(image.with_name("mask.png"))
        files["mask"] = handle_file(str(image.with_name("mask.png")))
    given = {"prompt": "a hat", "seed": 3, **asked}
    answers = list(client.submit(**given, **files, api_name=f"/{name}"))
    settings = pipe.defaults.replace(**(SETTINGS if "scales" in asked else {}))
    *_, task, seed = Path(answers[-1]).stem.split("-")
    *_, expected = draw(pipe, image, prompt="a hat", seed=int(seed), settings=settings)
    assert len(answers) >= 3 and task == name and given["seed"] in (int(seed), None)
    assert np.array_equal(open_image(answers[-1]), expected.image) and read_recipe(answers[-1]) == expected.recipe


def test_a_mask_is_found_by_words(client: Client, pipe: HeldPipeline, image: Path) -> None:
    mask = client.predict(handle_file(str(image)), "a hat", api_name="/suggest_mask")
    assert np.array_equal(open_image(mask), pipe.suggest_mask(image, "a hat"))


def test_the_documented_client_runs_as_written(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Less the port, and on a tiny model."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "gradio_client" in block]
    address = "http://127.0.0.1:7860"
    assert address in block
    monkeypatch.chdir(ROOT)
    exec(compile(block.replace(address, client.src), "hosting.md", "exec"), {})
    recipe = read_recipe(capsys.readouterr().out.splitlines()[-1])
    assert recipe is not None and recipe.prompt == "a red car"


def test_the_endpoints_are_tools(page: PageClient, pipe: HeldPipeline) -> None:
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamablehttp_client

    async def ask(url: str) -> tuple[dict[str, Any], list[Any]]:
        async with streamablehttp_client(url) as (read, write, _), mcp.ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answer = await session.call_tool("generate", {"prompt": "a hat", "seed": 1})
            return tools, answer.content

    tools, (answer, address) = anyio.run(ask, f"{page.url}gradio_api/mcp/")
    assert set(tools) == {"describe", "edit", "generate", "suggest_mask", "vary"}, "and nothing of the page itself"
    schema = tools["edit"].inputSchema
    assert tools["edit"].description.startswith("Regenerate a part of an image") and schema["required"] == ["image"]
    assert all(about.get("description") for about in schema["properties"].values())
    with Image.open(io.BytesIO(base64.b64decode(answer.data))) as image:
        *_, result = pipe.generate("a hat", seed=1)
        assert answer.mimeType == "image/png" and np.array_equal(image, result.image)
    assert address.text.startswith(f"Image URL: {page.url}") and address.text.endswith("generate-1.png")


def test_what_is_wrong_is_said(page: PageClient) -> None:
    for name, data, sentence in (
        ("edit", [None, None, "center", "", 1, None, 1, False], "There is no image; give a"),
        ("edit", [UPLOADED, None, [1], "", 1, None, 1, False], "no ready mask [1]; choose one of upper half"),
        ("vary", [UPLOADED, 2, "", 1, None, 1], "strength is 2"),
        ("generate", [3, 1, None, 1], "The prompt is 3; it must be a text"),
        ("suggest_mask", [UPLOADED, ""], "Without words"),
        ("describe", [UPLOADED], "cannot say what an image shows"),
    ):
        assert sentence in page.call(name, data)


def test_a_file_that_is_no_image_or_too_large_is_refused(page: PageClient, image: Path) -> None:
    image.write_text("not an image")
    with pytest.raises(Exception, match="not an image we can read"):
        Client(page.url, verbose=False).predict(handle_file(str(image)), area="center", api_name="/edit")
    reply = page.http.post("gradio_api/upload", files={"files": ("a.png", bytes(41 * 2**20))})
    assert reply.status_code == 413 and "maximum allowed size" in reply.text


def test_an_error_hides_the_server(page: PageClient, pipe: HeldPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("/secret/place is broken")

    monkeypatch.setattr(pipe.model.sampler, "prepare", broken)
    said = page.call("generate", ["a hat", 1, None, 1])
    assert "event: error" in said and "secret" not in said


def test_nothing_leaves_the_machine(page: PageClient) -> None:
    ABROAD.clear()  # of what clients in this process asked
    watch("socket.getaddrinfo", ("example.org", 443))
    watch("socket.connect", (None, ("192.0.2.1", 80)))
    assert [host for _, host in ABROAD] == ["example.org", "192.0.2.1"], "the watch sees nothing"
    ABROAD.clear()
    html, theme, config = (page.http.get(name).text for name in ("", "theme.css", "config"))
    addresses = re.findall(r"""(?:(?:href|src)=|url\()\s*["']?([^"')]*)""", html + theme)
    assert "./" in addresses and not [address for address in addresses if re.match(r"(\w+:)?//", address)]
    assert json.loads(config)["stylesheets"] == []
    assert "event: complete" in page.call("edit", [UPLOADED, None, "center", "a hat", 1, None, 1, False])
    assert ABROAD == []


def test_files_have_names_that_nobody_guesses_and_no_list_names_them(page: PageClient) -> None:
    names = {Path(write(Image.new("RGB", (16, 16), "red"))).name for write in (publish, publish)}
    assert len(names) == 2 and all(len(name.split("-")[1]) >= 12 for name in names)
    for folder in list(Path(page.image).parents)[:3]:
        for route in ("file=", "file/"):
            reply = page.http.get(f"gradio_api/{route}{folder}")
            assert reply.status_code >= 400 and Path(page.image).name not in reply.text


def until(true: Callable[[], object], what: str) -> None:
    """Looks again and again until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("leave", ["cancel", "hang up"])
def test_who_leaves_frees_the_model(page: PageClient, client: Client, pipe: HeldPipeline, leave: str) -> None:
    if leave == "cancel":
        job = client.submit(prompt="for ever", seed=11, api_name="/generate")
        next(iter(job))
        job.cancel()
    else:
        with page.listening(page.generate(11, "for ever")) as lines:
            assert any(line == "event: generating" for line in lines)
    until(lambda: pipe.running == 0, "the end of the run")
    assert "event: complete" in page.call("generate", ["a hat", 12, None, None])


def test_those_who_wait_are_served_in_order_unless_they_left(page: PageClient, pipe: HeldPipeline) -> None:
    pipe.hold()
    requests = {seed: page.generate(seed) for seed in (30, 33, 32, 31)}
    with page.listening(requests[33]):
        until(lambda: page.waiting() == 3, "three in the queue")
    until(lambda: page.waiting() == 2, "two in the queue")
    pipe.released.set()
    for seed in (30, 32, 31):
        assert "event: complete" in page.answer(requests[seed])
    assert [seed for seed, what in pipe.log if what == "begun"] == [30, 32, 31]


def test_a_full_queue_is_said_and_those_in_it_stay(page: PageClient, client: Client, pipe: HeldPipeline) -> None:
    pipe.hold()
    first = page.generate(40)
    until(lambda: page.waiting() == 0 and pipe.log, "the first run")
    requests = [page.generate(41 + number) for number in range(MAX_QUEUE)]
    with pytest.raises(QueueError, match="full"):
        client.predict(prompt="", seed=99, api_name="/generate")
    number = next(n for n, endpoint in client.endpoints.items() if endpoint.api_name == "/generate")
    for request in requests[:-1]:
        cancel = {"session_hash": request, "fn_index": number, "event_id": request}
        assert page.http.post("gradio_api/cancel", json=cancel).status_code == 200
    pipe.released.set()
    for request in (first, requests[-1]):
        assert "event: complete" in page.answer(request)
    assert (99, "begun") not in pipe.log
