"""Published models from a server on the loopback: fetched, resumed, unpacked, converted."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import FileServer, apart_from_the_net, serving_file
from published_files import load, same_weights, write_package, write_tiny

from imagebart.core.errors import WeightsError
from imagebart.model import locate
from imagebart.weights.download import download, ensure_model
from imagebart.weights.registry import PublishedModel, converted_folder, published_folder

NAME = "ffhq_4_scales_geometric"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / NAME
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def package(model: Path) -> bytes:
    path = model.with_name("package.zip")
    write_package(path, model, f"{NAME}/")
    return path.read_bytes()


@pytest.fixture
def server(package: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    apart_from_the_net(tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    with serving_file(package) as server:
        monkeypatch.setattr(PublishedModel, "url", server.address)
        yield server


def files_beside() -> list[str]:
    return sorted(path.name for path in published_folder(NAME).parent.iterdir())


def same_files(folder: Path, other: Path) -> bool:
    one, two = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (folder, other))
    return one == two


def test_from_its_name_to_a_model(server: FileServer, model: Path) -> None:
    assert ensure_model(NAME) == converted_folder(NAME) == locate(NAME, download=True)
    assert same_weights(load(NAME), load(model))
    assert "photographs of faces" in (converted_folder(NAME) / "README.md").read_text()
    assert not list(published_folder(NAME).glob("*.ckpt"))
    assert len(server.requests) == 1


def test_a_connection_that_breaks_is_taken_up_again(server: FileServer, package: bytes, model: Path) -> None:
    server.breaks += [len(package) // 3, 2 * len(package) // 3]
    assert download(NAME) == published_folder(NAME)
    begins = [request.get("range") for request in server.requests]
    assert begins[0] is None and all(begin is not None and begin.startswith("bytes=") for begin in begins[1:])
    assert same_files(published_folder(NAME), model)
    assert files_beside() == [NAME, f"{NAME}.lock"]
    assert download(NAME) == published_folder(NAME)
    assert len(server.requests) == 3


def test_a_program_that_was_ended_goes_on_where_it_was(server: FileServer, package: bytes, model: Path) -> None:
    part, half = published_folder(NAME).with_name(f"{NAME}.zip.part"), len(package) // 2
    part.parent.mkdir(parents=True)
    for here in (package[:half], package, package + b"x"):  # the last is of another file, and begun anew
        part.write_bytes(here)
        assert same_files(download(NAME), model)
        shutil.rmtree(published_folder(NAME))
    assert [request.get("range") for request in server.requests] == [f"bytes={half}-", None]
    part.write_bytes(b"x" * 5000)
    with pytest.raises(WeightsError, match="download it again"):
        download(NAME)
    assert files_beside() == [f"{NAME}.lock"]


def test_files_stay_in_their_folder_whatever_the_zip_says(server: FileServer, model: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "evil.zip", model, "../../../")
    server.content = (tmp_path / "evil.zip").read_bytes()
    assert same_files(download(NAME), model)
    assert not list(tmp_path.glob("*.ckpt")) and files_beside() == [NAME, f"{NAME}.lock"]


def test_what_cannot_be_had_is_one_sentence(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="cat_3_scales is no published model.* Did you mean cats_3_scales"):
        download("cat_3_scales")
    server.status = 404
    with pytest.raises(WeightsError, match="^http://127.* cannot be downloaded: .*404"):
        download(NAME)
    server.status = 200
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        download(NAME, "http://127.0.0.1:9/x.zip")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(WeightsError, match="takes .* and 1.0 kB are free at"):
        download(NAME)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "incomplete", "a page"])
def test_a_damaged_zip_is_deleted(server: FileServer, package: bytes, tmp_path: Path, harm: str) -> None:
    middle = len(package) // 2
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("scale1.ckpt", b"x")
    server.content = {
        "truncated": package[:-1000],
        "flipped": package[:middle] + bytes([package[middle] ^ 1]) + package[middle + 1 :],
        "incomplete": (tmp_path / "other.zip").read_bytes(),
        "a page": b"<html>come back later</html>",
    }[harm]
    with pytest.raises(WeightsError, match=f"{NAME}.zip is not the zip of {NAME} .*; download it again."):
        download(NAME)
    assert files_beside() == [f"{NAME}.lock"]
