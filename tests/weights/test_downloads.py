"""Models from the network: published ones from a server of one file, ours to and from a Hub; both on the loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback import FileServer, Hub, apart_from_the_net, serving_file, serving_hub
from published_files import load, package_of, same_weights, write_tiny, zipped
from tiny_models import tiny_model, tiny_staged_model

from imagebart import Pipeline
from imagebart.cli import main
from imagebart.core.errors import WeightsError
from imagebart.model import locate
from imagebart.weights.download import download, ensure_model
from imagebart.weights.registry import PublishedModel, converted_folder, published_folder

PUBLISHED, OURS = "ffhq_4_scales_geometric", "someone/faces"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / PUBLISHED
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def package(model: Path) -> bytes:
    return package_of(model, f"{PUBLISHED}/")


@pytest.fixture
def server(package: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    apart_from_the_net(tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    with serving_file(package) as server:
        monkeypatch.setattr(PublishedModel, "url", server.address)
        yield server


def files_beside() -> list[str]:
    return sorted(path.name for path in published_folder(PUBLISHED).parent.iterdir())


def same_files(folder: Path, other: Path) -> bool:
    one, two = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (folder, other))
    return one == two


def test_from_a_name_to_a_model_by_a_broken_connection(server: FileServer, package: bytes, model: Path) -> None:
    server.breaks += [len(package) // 3, 2 * len(package) // 3]
    assert same_files(download(PUBLISHED), model)
    begins = [request.get("range") for request in server.requests]
    assert begins[0] is None and all(begin is not None and begin.startswith("bytes=") for begin in begins[1:])
    assert files_beside() == [PUBLISHED, f"{PUBLISHED}.lock"]
    assert download(PUBLISHED) == published_folder(PUBLISHED)
    assert ensure_model(PUBLISHED) == converted_folder(PUBLISHED) == locate(PUBLISHED, download=True)
    assert same_weights(load(PUBLISHED), load(model))
    assert "photographs of faces" in (converted_folder(PUBLISHED) / "README.md").read_text()
    assert not list(published_folder(PUBLISHED).glob("*.ckpt"))
    assert len(server.requests) == 3


def test_a_program_that_was_ended_goes_on_where_it_was(server: FileServer, package: bytes, model: Path) -> None:
    part, half = published_folder(PUBLISHED).with_name(f"{PUBLISHED}.zip.part"), len(package) // 2
    part.parent.mkdir(parents=True)
    for here in (package[:half], package, package + b"x"):  # the last is of another file, and begun anew
        part.write_bytes(here)
        assert same_files(download(PUBLISHED), model)
        shutil.rmtree(published_folder(PUBLISHED))
    assert [request.get("range") for request in server.requests] == [f"bytes={half}-", None]


@pytest.mark.parametrize("harm", ["another", "truncated", "flipped", "incomplete", "a page"])
def test_a_damaged_zip_is_deleted(server: FileServer, package: bytes, harm: str) -> None:
    middle = len(package) // 2
    server.content = {
        "another": b"x" * 5000 + package[5000:],
        "truncated": package[:-1000],
        "flipped": package[:middle] + bytes([package[middle] ^ 1]) + package[middle + 1 :],
        "incomplete": zipped({"scale1.ckpt": b"x"}),
        "a page": b"<html>come back later</html>",
    }[harm]
    with pytest.raises(WeightsError, match=f"{PUBLISHED}.zip is not the zip of {PUBLISHED} .*; download it again."):
        download(PUBLISHED)
    assert files_beside() == [f"{PUBLISHED}.lock"]


def test_files_stay_in_their_folder_whatever_the_zip_says(server: FileServer, model: Path, tmp_path: Path) -> None:
    server.content = package_of(model, "../../../")
    assert same_files(download(PUBLISHED), model)
    assert not list(tmp_path.glob("*.ckpt")) and files_beside() == [PUBLISHED, f"{PUBLISHED}.lock"]


def test_what_cannot_be_downloaded_is_one_sentence(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="cat_3_scales is no published model.* Did you mean cats_3_scales"):
        download("cat_3_scales")
    server.status = 404
    with pytest.raises(WeightsError, match="^http://127.* cannot be downloaded: .*404"):
        download(PUBLISHED)
    server.status = 200
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(WeightsError, match="takes .* and 1.0 kB are free at"):
        download(PUBLISHED)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def test_what_is_pushed_is_loaded_even_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next one takes its place, whose card stays; each commit and branch can be named."""
    first, second, third = tiny_staged_model(stages=3), tiny_model(seed=2), tiny_model(seed=3)
    address = first.push_to_hub(OURS)
    assert address.startswith(f"{hub.address}/{OURS}/commit/")
    card = hub.files(OURS, "main")["README.md"].decode()
    assert card.startswith("---\n") and "It generates nothing at 32 × 32 pixels" in card
    hub.commit(OURS, "main", {**hub.files(OURS, "main"), "README.md": b"# Mine\n", "model-9.safetensors": b"old"})
    second.push_to_hub(OURS)
    third.push_to_hub(OURS, revision="tried")
    assert hub.files(OURS, "main").keys() == {"README.md", "config.json", "model.safetensors"}
    assert same_weights(load(OURS, revision="tried"), third)
    assert same_weights(load(OURS, revision=address.rpartition("/")[2]), first)
    assert main(["generate", "--model", OURS, "--prompt", "a hat", "--out", str(tmp_path / "new.png")]) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert same_weights(load(OURS), second) and Pipeline.from_pretrained(OURS).card == "# Mine\n"
    with pytest.raises(WeightsError, match="someone/else is not on this machine, and HF_HUB_OFFLINE is set"):
        locate("someone/else")
    with pytest.raises(WeightsError, match="someone/faces cannot be sent to .*offline"):
        second.push_to_hub(OURS)
    assert len(hub.asked) == asked


def test_what_a_hub_does_not_have_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.commit(OURS, "main", {"config.json": b"{}"})
    with pytest.raises(WeightsError, match="someone/else is no model on http://127"):
        locate("someone/else")
    with pytest.raises(WeightsError, match="has no revision nowhere, expected a branch, tag or commit"):
        locate(OURS, revision="nowhere")
    asked = len(hub.asked)
    with pytest.raises(WeightsError, match="but .* is no model on the Hub"):
        locate(tmp_path, revision="main")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match="checkpoints/avatars is no published model, no folder"):
        locate("checkpoints/avatars")
    assert len(hub.asked) == asked, "what is mistyped is nobody else's business"
    with serving_hub(monkeypatch, tmp_path / "other cache"):
        pass
    with pytest.raises(WeightsError, match="someone/faces is not on this machine, and http://127.* cannot be reached"):
        locate(OURS)


def test_code_in_a_repository_is_never_run(hub: Hub) -> None:
    config = {"format": "imagebart", "version": 2, "auto_map": {"AutoModel": "evil.Model"}}
    hub.commit(OURS, "main", {"config.json": json.dumps(config).encode(), "evil.py": b"1/0", "model.bin": b"\x80"})
    with pytest.raises(WeightsError, match="config.json"):
        load(OURS)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("evil.py"))
