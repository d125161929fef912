"""Published models by name: downloaded, checked, unpacked, converted, loaded; servers that misbehave included."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from fault_injection import killed_at_every_step
from faulty_server import (
    Answer,
    FaultyServer,
    apart_from_the_net,
    behave,
    breaking_off,
    changing,
    claiming,
    refusing,
    serving_file,
)
from huggingface_hub import constants
from published_files import write_package, write_tiny

from imagebart.errors import InputError, WeightsError
from imagebart.locate import locate
from imagebart.published.download import MAX_TRIES, Fetch, FetchError, ProgressBar, download, ensure_model
from imagebart.published.registry import MODELS, cache_dir, converted_folder, did_you_mean, published_folder

from .checkpoints import load, same_weights

SIZE = 300_000
CONTENT, OTHER = (np.random.default_rng(seed).bytes(SIZE) for seed in (0, 1))


class Recorder(ProgressBar):
    """A progress bar that keeps what it was given; and the seconds that were waited."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int | None = None
        self.done = 0
        self.messages: list[str] = []
        self.waited: list[float] = []

    def start(self, what: str, total: int | None, done: int) -> None:
        self.total, self.done = total, done

    def advance(self, count: int) -> None:
        self.done += count

    def say(self, sentence: str) -> None:
        self.messages.append(sentence)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving_file(CONTENT) as server:
        yield server


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


@pytest.fixture
def fetch(server: FaultyServer, progress: Recorder, tmp_path: Path) -> Fetch:
    return Fetch(f"{server.address}/model.zip", tmp_path / "model.zip", progress, wait=progress.waited.append)


def test_a_file_comes_whole(fetch: Fetch, progress: Recorder, tmp_path: Path) -> None:
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert (progress.total, progress.done, progress.messages) == (SIZE, SIZE, [])
    assert list(tmp_path.iterdir()) == [fetch.path]


def test_what_broke_off_goes_on_where_it_was(server: FaultyServer, fetch: Fetch, progress: Recorder) -> None:
    server.faults += [breaking_off(100_000), breaking_off(200_000)]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    begins = [int(asked["range"].removeprefix("bytes=").rstrip("-")) for asked in server.requests[1:]]
    assert len(begins) == 2 and 0 < begins[0] <= 100_000 and begins[0] < begins[1] <= 200_000
    assert all(asked["if-range"] == server.etag for asked in server.requests[1:])
    assert progress.done == SIZE
    assert len(progress.waited) == 2 and max(progress.waited) < 2  # new bytes came each time


def test_another_process_goes_on_too(server: FaultyServer, fetch: Fetch, tmp_path: Path) -> None:
    server.faults += [breaking_off(100_000), refusing(404)]
    with pytest.raises(FetchError, match="404"):
        fetch.run()
    assert not fetch.path.exists()
    Fetch(fetch.url, fetch.path, Recorder()).run()
    assert fetch.path.read_bytes() == CONTENT
    assert "range" in server.requests[-1]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_two_ranges_is_downloaded_again(
    server: FaultyServer, fetch: Fetch, progress: Recorder, honest: bool
) -> None:
    """Whether the server minds If-Range or not."""

    def ignoring(answer: Answer) -> None:
        answer.state.content = OTHER
        begin = int(answer.headers["range"].removeprefix("bytes=").rstrip("-"))
        headers = {"Content_Range": f"bytes {begin}-{SIZE - 1}/{SIZE}", "Content_Length": SIZE - begin}
        answer.begin(206, ETag=answer.state.etag, **headers)
        answer.wfile.write(OTHER[begin:])

    server.faults += [breaking_off(100_000), changing(OTHER) if honest else ignoring]
    fetch.run()
    assert fetch.path.read_bytes() == OTHER
    assert any("restarts" in sentence for sentence in progress.messages)


def test_a_file_that_got_shorter_is_downloaded_again(server: FaultyServer, fetch: Fetch) -> None:
    def shorten(answer: Answer) -> None:
        answer.state.content = OTHER[:50_000]
        answer.begin(416, Content_Range="bytes */50000", Content_Length=0)

    server.faults += [breaking_off(100_000), shorten]
    fetch.run()
    assert fetch.path.read_bytes() == OTHER[:50_000]


def test_a_part_that_is_all_of_the_file_is_taken(server: FaultyServer, fetch: Fetch) -> None:
    server.faults += [breaking_off(100_000), refusing(403)]
    with pytest.raises(FetchError):
        fetch.run()
    fetch.part.write_bytes(CONTENT)  # all had come when the process was killed
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert len(server.requests) == 3  # the last one was answered by 416


def test_without_a_way_to_tell_versions_nothing_is_resumed(server: FaultyServer, fetch: Fetch) -> None:
    def nameless(answer: Answer) -> None:
        answer.begin(200, Content_Length=SIZE)
        answer.wfile.write(OTHER[:100_000])

    server.faults += [nameless]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert "range" not in server.requests[1]


@pytest.mark.parametrize(
    ("status", "retry_after", "low", "high"),
    [(429, "7", 7, 7), (503, "a date in six minutes", 1, 360), (500, None, 0.7, 1.3)],
)
def test_a_busy_server_is_asked_again_when_it_wants(
    server: FaultyServer,
    fetch: Fetch,
    progress: Recorder,
    status: int,
    retry_after: str | None,
    low: float,
    high: float,
) -> None:
    if retry_after == "a date in six minutes":
        retry_after = format_datetime(datetime.now(timezone.utc) + timedelta(minutes=6), usegmt=True)
    server.faults += [refusing(status, **({} if retry_after is None else {"Retry_After": retry_after}))]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert len(progress.waited) == 1 and low <= progress.waited[0] <= high
    assert str(status) in progress.messages[0]


def test_a_server_that_wants_a_day_is_given_up(server: FaultyServer, fetch: Fetch, progress: Recorder) -> None:
    server.faults += [refusing(429, Retry_After=86_400)]
    with pytest.raises(FetchError, match="429.* to wait 86,400 s"):
        fetch.run()
    assert progress.waited == []


def test_waiting_has_an_end(server: FaultyServer, fetch: Fetch, progress: Recorder) -> None:
    server.faults += [refusing(503)] * 20
    with pytest.raises(FetchError, match=f"tried {MAX_TRIES} times: the server says 503"):
        fetch.run()
    assert len(server.requests) == MAX_TRIES
    assert progress.waited == sorted(progress.waited)  # longer each time


def test_a_file_that_never_stays_the_same_is_given_up(server: FaultyServer, fetch: Fetch) -> None:
    def another(answer: Answer) -> None:
        answer.state.content = np.random.default_rng(len(answer.state.requests)).bytes(SIZE)
        breaking_off(100_000)(answer)

    server.faults += [another] * 100
    with pytest.raises(FetchError, match="cannot be downloaded"):
        fetch.run()
    assert len(server.requests) < 50 and not fetch.path.exists()


def test_a_length_that_is_too_long_is_no_whole_file(server: FaultyServer, fetch: Fetch) -> None:
    server.faults += [claiming(SIZE + 1000)] * 20
    server.content = CONTENT
    with pytest.raises(FetchError):
        fetch.run()
    assert not fetch.path.exists()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirections_are_followed(server: FaultyServer, fetch: Fetch, status: int) -> None:
    server.faults += [refusing(status, Location="/elsewhere/x.zip")]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert server.requests[1]["path"] == "/elsewhere/x.zip"


@pytest.mark.parametrize("place", ["/round", "ftp://example.org/x", "file:///etc/passwd"])
def test_redirections_that_lead_nowhere_are_an_end(
    server: FaultyServer, fetch: Fetch, progress: Recorder, place: str
) -> None:
    server.faults += [refusing(302, Location=place)] * 50
    with pytest.raises(FetchError, match="model.zip cannot be downloaded"):
        fetch.run()
    assert progress.waited == [] and not fetch.path.exists()


def test_a_file_without_room_is_refused_before_a_byte_comes(server: FaultyServer, fetch: Fetch, tmp_path: Path) -> None:
    asked = []

    def room(length: int, here: int) -> None:
        asked.append((length, here))
        raise OSError("full")

    fetch.check_space = room
    with pytest.raises(OSError, match="full"):
        fetch.run()
    assert asked == [(SIZE, 0)] and list(tmp_path.iterdir()) == []


def test_the_proxy_of_the_environment_is_asked(
    server: FaultyServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    server.faults += [behave]
    fetch.url = "http://models.invalid/model.zip"
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert server.requests[0]["path"] == "http://models.invalid/model.zip"


NAME = "ffhq_4_scales_geometric"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tiny model under a published one's name."""
    folder = tmp_path_factory.mktemp("published") / NAME
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def package(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("package") / "model.zip"
    write_package(path, model, f"{NAME}/")
    return path.read_bytes()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return apart_from_the_net(tmp_path, monkeypatch)


@pytest.fixture
def package_server(package: bytes) -> Iterator[FaultyServer]:
    with serving_file(package) as server:
        yield server


def test_a_download_is_loaded_by_its_name(package_server: FaultyServer, model: Path) -> None:
    progress = Recorder()
    folder = download(NAME, [package_server.address], progress)
    assert folder == published_folder(NAME) == locate(NAME)
    assert package_server.requests[0]["path"] == f"/{NAME}.zip"
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in model.iterdir()} | {"download.json"}
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in model.iterdir())
    assert not list(folder.parent.glob("*.zip*"))
    assert same_weights(load(NAME), load(model))
    download(NAME, [], progress)  # nothing is asked for: it is here
    assert len(package_server.requests) == 1 and "is in" in progress.messages[-1]


def test_from_pretrained_fetches_and_converts_when_asked(
    package_server: FaultyServer, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsError, match=f"python -m imagebart download {NAME}"):
        load(NAME)
    monkeypatch.setenv("IMAGEBART_MIRRORS", f"{package_server.address}/mirror")
    ours = load(NAME, download=True)
    said = capsys.readouterr().err
    assert said.index("is not here: about 7.6 GB to download") < said.index("stage 1 of 4 is written")
    assert same_weights(ours, load(model))
    assert locate(NAME) == converted_folder(NAME)
    assert "photographs of faces" in (converted_folder(NAME) / "README.md").read_text()
    assert not list(published_folder(NAME).glob("*.ckpt"))
    ensure_model(NAME, progress=Recorder())
    assert len(package_server.requests) == 1


def test_a_conversion_that_was_stopped_goes_on_though_published_files_are_gone(
    package_server: FaultyServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Recorder):
        def say(self, sentence: str) -> None:
            if sentence.startswith("stage 2"):
                raise KeyboardInterrupt

    monkeypatch.setenv("IMAGEBART_MIRRORS", package_server.address)
    with pytest.raises(KeyboardInterrupt):
        ensure_model(NAME, progress=Stopping())
    assert not (published_folder(NAME) / "scale1.ckpt").exists()
    assert same_weights(load(ensure_model(NAME, progress=Recorder())), load(model))
    assert len(package_server.requests) == 1


def test_the_first_checksum_is_recorded_and_said_and_the_next_compared(
    package_server: FaultyServer, package: bytes
) -> None:
    digest, progress = hashlib.sha256(package).hexdigest(), Recorder()
    folder = download(NAME, [package_server.address], progress)
    assert json.loads((cache_dir() / "recorded.json").read_text()) == {NAME: digest}
    assert any("No checksum" in said and digest in said for said in progress.messages)
    shutil.rmtree(folder)
    package_server.content = package[:-1] + b"\1"
    with pytest.raises(WeightsError, match=f"has the SHA-256 .*expected the one of the first download, {digest}"):
        download(NAME, [package_server.address], Recorder())
    assert not folder.exists() and not list(folder.parent.glob("*.zip*"))
    package_server.content = package
    assert download(NAME, [package_server.address], Recorder()).is_dir()


def test_the_next_source_is_tried(package_server: FaultyServer, model: Path, package: bytes) -> None:
    progress = Recorder()
    with serving_file(package[:1000]) as cut:
        download(NAME, ["nowhere", cut.address, package_server.address], progress)
    assert any("nowhere holds neither" in said for said in progress.messages)
    assert any("is no zip, or not all of one: 1,000 bytes came" in said for said in progress.messages)
    assert len(package_server.requests) == 1


@pytest.mark.parametrize("kind", ["zip", "folder of zips", "files", "folder of files"])
def test_a_local_copy_will_do_and_stays(model: Path, package: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{NAME}.zip"
    path.write_bytes(package)
    source = {"zip": path, "folder of zips": tmp_path, "files": model, "folder of files": model.parent}[kind]
    folder = download(NAME, [str(source)], Recorder())
    assert (folder / "scale4.ckpt").read_bytes() == (model / "scale4.ckpt").read_bytes()
    assert path.is_file() and (model / "scale4.ckpt").is_file()


def test_offline_nothing_is_asked_for(
    package_server: FaultyServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        download(NAME, [package_server.address], Recorder())
    assert package_server.requests == []
    assert download(NAME, [str(model)], Recorder()).is_dir()


def test_wrong_names_and_addresses_are_named() -> None:
    with pytest.raises(InputError, match="'fhq_4_scales'. Did you mean ffhq_4_scales_geometric?"):
        download("fhq_4_scales", [], Recorder())
    with pytest.raises(InputError, match="ftp://example.org is no address to download from"):
        download(NAME, ["ftp://example.org"], Recorder())
    assert did_you_mean("zzz") == f"There are {', '.join(MODELS)}."


def test_a_disk_without_room_is_said_before_anything_comes(
    package_server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage("/")._replace(free=len(package_server.content))  # for the zip, not for what is in it
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(OSError, match=f"There is no room for {NAME}: it takes .* are free at"):
        download(NAME, [package_server.address, package_server.address], Recorder())
    assert len(package_server.requests) == 1  # another mirror would not help
    assert not list(published_folder(NAME).parent.glob("*.zip*"))


def altered(package: Path, change: str, model: Path) -> Path:
    """A package with something wrong in it."""
    with zipfile.ZipFile(package, "w") as archive:
        for path in sorted(model.iterdir()):
            if change != "lacks" or path.name != "scale3.ckpt":
                archive.write(path, f"../../{path.name}" if change == "climbs" else path.name)
        if change == "twice":
            archive.write(model / "scale1.ckpt", "other/scale1.ckpt")
    if change == "damaged":
        content = bytearray(package.read_bytes())
        content[len(content) // 2] ^= 1
        package.write_bytes(content)
    return package


@pytest.mark.parametrize(
    ("change", "reason"),
    [("lacks", "lacks scale3.ckpt"), ("twice", "has scale1.ckpt twice"), ("damaged", "cannot be unpacked: Bad CRC-32")],
)
def test_packages_that_are_not_whole_are_no_models(tmp_path: Path, model: Path, change: str, reason: str) -> None:
    package = altered(tmp_path / f"{NAME}.zip", change, model)
    with pytest.raises(WeightsError, match=reason):
        download(NAME, [str(package)], Recorder())
    assert {path.name for path in published_folder(NAME).parent.iterdir()} <= {f"{NAME}.lock"}


def test_names_in_a_package_lead_nowhere_else(tmp_path: Path, model: Path, home: Path) -> None:
    folder = download(NAME, [str(altered(tmp_path / f"{NAME}.zip", "climbs", model))], Recorder())
    assert (folder / "scale1.ckpt").is_file()
    assert not list(folder.parent.glob("scale*")) and not list(home.glob("**/imagebart/scale*"))


def test_two_processes_take_turns(package_server: FaultyServer) -> None:
    context = multiprocessing.get_context("fork")
    package_server.faults += [breaking_off(10_000)]
    both = [context.Process(target=download, args=(NAME, [package_server.address], Recorder())) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(package_server.requests) == 2  # the one that broke off, and its rest
    assert published_folder(NAME).is_dir()


def test_killed_at_any_moment_it_is_whole_or_not_there(model: Path, home: Path) -> None:
    steps = 0
    for _ in killed_at_every_step(lambda: download(NAME, [str(model)], Recorder())):
        steps += 1
        folder = published_folder(NAME)
        assert not folder.exists() or len(list(folder.glob("scale*.ckpt"))) == 4
        shutil.rmtree(home, ignore_errors=True)
    assert steps > 10
