"""Published models by name: fetched, checked, unpacked, converted, drawn from."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fickle_server import Fickle, apart_from_the_net, breaking_off, serving_file
from huggingface_hub import constants
from killing import killed_at_every_step
from published_files import write_package, write_tiny

from imagebart import ImageBART
from imagebart.errors import InputError
from imagebart.weights import WeightsError, locate
from imagebart.weights.published.download import download, ensure_model
from imagebart.weights.published.registry import MODELS, cache_dir, converted_folder, did_you_mean, published_folder

from .test_fetch import Watch

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
def server(package: bytes) -> Iterator[Fickle]:
    with serving_file(package) as fickle:
        yield fickle


def test_a_download_is_loaded_by_its_name(server: Fickle, model: Path) -> None:
    watch = Watch()
    folder = download(NAME, [server.address], watch)
    assert folder == published_folder(NAME) == locate(NAME)
    assert server.asked[0]["path"] == f"/{NAME}.zip"
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in model.iterdir()} | {"download.json"}
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in model.iterdir())
    assert not list(folder.parent.glob("*.zip*"))
    ours, theirs = ImageBART.from_pretrained(NAME).state_dict(), ImageBART.from_pretrained(model).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    download(NAME, [], watch)  # nothing is asked for: it is here
    assert len(server.asked) == 1 and "is in" in watch.said[-1]


def test_from_pretrained_fetches_and_converts_when_asked(
    server: Fickle, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsError, match=f"python -m imagebart download {NAME}"):
        ImageBART.from_pretrained(NAME)
    monkeypatch.setenv("IMAGEBART_MIRRORS", f"{server.address}/mirror")
    ours = ImageBART.from_pretrained(NAME, download=True).state_dict()
    said = capsys.readouterr().err
    assert said.index("is not here: about 7.6 GB to download") < said.index("stage 1 of 4 is written")
    theirs = ImageBART.from_pretrained(model).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert locate(NAME) == converted_folder(NAME)
    assert "photographs of faces" in (converted_folder(NAME) / "README.md").read_text()
    assert not list(published_folder(NAME).glob("*.ckpt"))
    ensure_model(NAME, progress=Watch())
    assert len(server.asked) == 1


def test_the_first_checksum_is_recorded_and_said_and_the_next_compared(server: Fickle, package: bytes) -> None:
    digest, watch = hashlib.sha256(package).hexdigest(), Watch()
    folder = download(NAME, [server.address], watch)
    assert json.loads((cache_dir() / "recorded.json").read_text()) == {NAME: digest}
    assert any("No checksum" in said and digest in said for said in watch.said)
    shutil.rmtree(folder)
    server.content = package[:-1] + b"\1"
    with pytest.raises(WeightsError, match=f"has the SHA-256 .*expected the one of the first download, {digest}"):
        download(NAME, [server.address], Watch())
    assert not folder.exists() and not list(folder.parent.glob("*.zip*"))
    server.content = package
    assert download(NAME, [server.address], Watch()).is_dir()


def test_the_next_source_is_tried(server: Fickle, model: Path, package: bytes) -> None:
    watch = Watch()
    with serving_file(package[:1000]) as cut:
        download(NAME, ["nowhere", cut.address, server.address], watch)
    assert any("nowhere holds neither" in said for said in watch.said)
    assert any("is no zip, or not all of one: 1,000 bytes came" in said for said in watch.said)
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", ["zip", "folder of zips", "files", "folder of files"])
def test_a_local_copy_will_do_and_stays(model: Path, package: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{NAME}.zip"
    path.write_bytes(package)
    source = {"zip": path, "folder of zips": tmp_path, "files": model, "folder of files": model.parent}[kind]
    folder = download(NAME, [str(source)], Watch())
    assert (folder / "scale4.ckpt").read_bytes() == (model / "scale4.ckpt").read_bytes()
    assert path.is_file() and (model / "scale4.ckpt").is_file()


def test_offline_nothing_is_asked_for(server: Fickle, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        download(NAME, [server.address], Watch())
    assert server.asked == []
    assert download(NAME, [str(model)], Watch()).is_dir()


def test_wrong_names_and_addresses_are_named() -> None:
    with pytest.raises(InputError, match="'fhq_4_scales'. Did you mean ffhq_4_scales_geometric?"):
        download("fhq_4_scales", [], Watch())
    with pytest.raises(InputError, match="ftp://example.org is no address to download from"):
        download(NAME, ["ftp://example.org"], Watch())
    assert did_you_mean("zzz") == f"There are {', '.join(MODELS)}."


def test_a_disk_without_room_is_said_before_anything_comes(server: Fickle, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shutil.disk_usage("/")._replace(free=len(server.content))  # for the zip, not for what is in it
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(OSError, match=f"There is no room for {NAME}: it takes .* are free at"):
        download(NAME, [server.address, server.address], Watch())
    assert len(server.asked) == 1  # another mirror would not help
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
        download(NAME, [str(package)], Watch())
    assert {path.name for path in published_folder(NAME).parent.iterdir()} <= {f"{NAME}.lock"}


def test_names_in_a_package_lead_nowhere_else(tmp_path: Path, model: Path, home: Path) -> None:
    folder = download(NAME, [str(altered(tmp_path / f"{NAME}.zip", "climbs", model))], Watch())
    assert (folder / "scale1.ckpt").is_file()
    assert not list(folder.parent.glob("scale*")) and not list(home.glob("**/imagebart/scale*"))


def test_two_processes_take_turns(server: Fickle) -> None:
    context = multiprocessing.get_context("fork")
    server.moods += [breaking_off(10_000)]
    both = [context.Process(target=download, args=(NAME, [server.address], Watch())) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert len(server.asked) == 2  # the one that broke off, and its rest
    assert published_folder(NAME).is_dir()


def test_killed_at_any_moment_it_is_whole_or_not_there(model: Path, home: Path) -> None:
    steps = 0
    for _ in killed_at_every_step(lambda: download(NAME, [str(model)], Watch())):
        steps += 1
        folder = published_folder(NAME)
        assert not folder.exists() or len(list(folder.glob("scale*.ckpt"))) == 4
        shutil.rmtree(home, ignore_errors=True)
    assert steps > 10
