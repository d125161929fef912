"""One file from a server on the loopback that misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from fickle_server import Answer, Fickle, behave, breaking_off, changing, claiming, refusing, serving_file

from imagebart.weights.published.download import MAX_TRIES, Fetch, FetchError

SIZE = 300_000
CONTENT, OTHER = (np.random.default_rng(seed).bytes(SIZE) for seed in (0, 1))


class Watch:
    """A bar that remembers; and what was waited."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0
        self.said: list[str] = []
        self.waited: list[float] = []

    def start(self, what: str, total: int | None, done: int) -> None:
        self.total, self.done = total, done

    def advance(self, count: int) -> None:
        self.done += count

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def server() -> Iterator[Fickle]:
    with serving_file(CONTENT) as fickle:
        yield fickle


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def fetch(server: Fickle, watch: Watch, tmp_path: Path) -> Fetch:
    return Fetch(f"{server.address}/model.zip", tmp_path / "model.zip", watch, wait=watch.waited.append)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole(fetch: Fetch, watch: Watch, tmp_path: Path) -> None:
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert (watch.total, watch.done, watch.said) == (SIZE, SIZE, [])
    assert files(tmp_path) == ["model.zip"]


def test_what_broke_off_goes_on_where_it_was(server: Fickle, fetch: Fetch, watch: Watch) -> None:
    server.moods += [breaking_off(100_000), breaking_off(200_000)]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    begins = [int(asked["range"].removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:]]
    assert len(begins) == 2 and 0 < begins[0] <= 100_000 and begins[0] < begins[1] <= 200_000
    assert all(asked["if-range"] == server.etag for asked in server.asked[1:])
    assert watch.done == SIZE
    assert len(watch.waited) == 2 and max(watch.waited) < 2  # new bytes came each time


def test_another_process_goes_on_too(server: Fickle, fetch: Fetch, tmp_path: Path) -> None:
    server.moods += [breaking_off(100_000), refusing(404)]
    with pytest.raises(FetchError, match="404"):
        fetch.run()
    assert not fetch.path.exists()
    Fetch(fetch.url, fetch.path, Watch()).run()
    assert fetch.path.read_bytes() == CONTENT
    assert "range" in server.asked[-1]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_between_two_ranges_begins_anew(
    server: Fickle, fetch: Fetch, watch: Watch, honest: bool
) -> None:
    """Whether the server minds If-Range or not."""

    def ignoring(answer: Answer) -> None:
        answer.fickle.content = OTHER
        begin = int(answer.headers["range"].removeprefix("bytes=").rstrip("-"))
        headers = {"Content_Range": f"bytes {begin}-{SIZE - 1}/{SIZE}", "Content_Length": SIZE - begin}
        answer.begin(206, ETag=answer.fickle.etag, **headers)
        answer.wfile.write(OTHER[begin:])

    server.moods += [breaking_off(100_000), changing(OTHER) if honest else ignoring]
    fetch.run()
    assert fetch.path.read_bytes() == OTHER
    assert any("begins anew" in sentence for sentence in watch.said)


def test_a_file_that_got_shorter_begins_anew(server: Fickle, fetch: Fetch) -> None:
    def shorten(answer: Answer) -> None:
        answer.fickle.content = OTHER[:50_000]
        answer.begin(416, Content_Range="bytes */50000", Content_Length=0)

    server.moods += [breaking_off(100_000), shorten]
    fetch.run()
    assert fetch.path.read_bytes() == OTHER[:50_000]


def test_a_part_that_is_all_of_the_file_is_taken(server: Fickle, fetch: Fetch) -> None:
    server.moods += [breaking_off(100_000), refusing(403)]
    with pytest.raises(FetchError):
        fetch.run()
    fetch.part.write_bytes(CONTENT)  # all had come when the process was killed
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert len(server.asked) == 3  # the last one was answered by 416


def test_without_a_way_to_tell_versions_nothing_is_resumed(server: Fickle, fetch: Fetch) -> None:
    def nameless(answer: Answer) -> None:
        answer.begin(200, Content_Length=SIZE)
        answer.wfile.write(OTHER[:100_000])

    server.moods += [nameless]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert "range" not in server.asked[1]


def later() -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=90), usegmt=True)


@pytest.mark.parametrize(
    ("status", "after", "low", "high"), [(429, "7", 7, 7), (503, later, 60, 90), (500, "", 0.7, 1.3)]
)
def test_a_busy_server_is_asked_again_when_it_wants(
    server: Fickle, fetch: Fetch, watch: Watch, status: int, after: str | Callable[[], str], low: float, high: float
) -> None:
    value = after if isinstance(after, str) else after()
    server.moods += [refusing(status, Retry_After=value) if value else refusing(status)]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert len(watch.waited) == 1 and low <= watch.waited[0] <= high
    assert str(status) in watch.said[0]


def test_a_server_that_wants_a_day_is_given_up(server: Fickle, fetch: Fetch, watch: Watch) -> None:
    server.moods += [refusing(429, Retry_After=86_400)]
    with pytest.raises(FetchError, match="429.* to wait 86,400 s"):
        fetch.run()
    assert watch.waited == []


def test_waiting_has_an_end(server: Fickle, fetch: Fetch, watch: Watch) -> None:
    server.moods += [refusing(503)] * 20
    with pytest.raises(FetchError, match=f"tried {MAX_TRIES} times: the server says 503"):
        fetch.run()
    assert len(server.asked) == MAX_TRIES
    assert watch.waited == sorted(watch.waited)  # longer each time


def test_a_file_that_never_stays_the_same_is_given_up(server: Fickle, fetch: Fetch) -> None:
    def another(answer: Answer) -> None:
        answer.fickle.content = np.random.default_rng(len(answer.fickle.asked)).bytes(SIZE)
        breaking_off(100_000)(answer)

    server.moods += [another] * 100
    with pytest.raises(FetchError, match="cannot be downloaded"):
        fetch.run()
    assert len(server.asked) < 50 and not fetch.path.exists()


def test_a_length_that_is_too_long_is_no_whole_file(server: Fickle, fetch: Fetch) -> None:
    server.moods += [claiming(SIZE + 1000)] * 20
    server.content = CONTENT
    with pytest.raises(FetchError):
        fetch.run()
    assert not fetch.path.exists()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirections_are_followed(server: Fickle, fetch: Fetch, status: int) -> None:
    server.moods += [refusing(status, Location="/elsewhere/x.zip")]
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert server.asked[1]["path"] == "/elsewhere/x.zip"


@pytest.mark.parametrize("place", ["/round", "ftp://example.org/x", "file:///etc/passwd"])
def test_redirections_that_lead_nowhere_are_an_end(server: Fickle, fetch: Fetch, watch: Watch, place: str) -> None:
    server.moods += [refusing(302, Location=place)] * 50
    with pytest.raises(FetchError, match="model.zip cannot be downloaded"):
        fetch.run()
    assert watch.waited == [] and not fetch.path.exists()


def test_a_file_without_room_is_refused_before_a_byte_comes(server: Fickle, fetch: Fetch, tmp_path: Path) -> None:
    asked = []

    def room(length: int, here: int) -> None:
        asked.append((length, here))
        raise OSError("full")

    fetch.check_space = room
    with pytest.raises(OSError, match="full"):
        fetch.run()
    assert asked == [(SIZE, 0)] and files(tmp_path) == []


def test_the_proxy_of_the_environment_is_asked(server: Fickle, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    server.moods += [behave]
    fetch.url = "http://models.invalid/model.zip"
    fetch.run()
    assert fetch.path.read_bytes() == CONTENT
    assert server.asked[0]["path"] == "http://models.invalid/model.zip"
