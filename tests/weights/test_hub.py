"""Models pushed to a Hub and fetched from it again; the Hub is one on the loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from loopback import Hub, serving_hub
from published_files import load, same_weights
from tiny_models import tiny_model, tiny_staged_model

from imagebart import Pipeline
from imagebart.cli import main
from imagebart.core.errors import WeightsError
from imagebart.model import locate, push_folder

NAME = "someone/faces"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving_hub(monkeypatch, tmp_path / "cache") as hub:
        yield hub


def test_what_is_pushed_is_what_is_loaded(hub: Hub) -> None:
    first, second, third = (tiny_model(seed=seed) for seed in (1, 2, 3))
    address = first.push_to_hub(NAME)
    assert address.startswith(f"{hub.address}/{NAME}/commit/")
    second.push_to_hub(NAME)
    third.push_to_hub(NAME, revision="tried")
    assert same_weights(load(NAME), second)
    assert same_weights(load(NAME, revision="tried"), third)
    assert same_weights(load(NAME, revision=address.rpartition("/")[2]), first)
    card = hub.files(NAME, "main")["README.md"].decode()
    assert card.startswith("---\n") and "It generates nothing at 32 × 32 pixels" in card
    assert Pipeline.from_pretrained(NAME).card.startswith("# tiny\n")


def test_a_folder_is_sent_with_what_belongs_to_it(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    tiny_staged_model(stages=3).save_pretrained(folder)
    (folder / "README.md").write_text("# Mine\n")
    (folder / "secret.txt").write_text("not of the model")
    (folder / "examples").mkdir()
    (folder / "examples" / "1-face.png").write_bytes(b"a picture")
    assert main(["push", str(folder), NAME]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.address}/{NAME}/commit/")
    files = [path for path in folder.rglob("*.*") if path.name != "secret.txt"]
    assert hub.files(NAME, "main") == {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    tiny_staged_model(stages=2).save_pretrained(folder)
    (folder / "README.md").unlink()
    push_folder(folder, NAME)
    now = hub.files(NAME, "main")
    assert now["README.md"] == b"# Mine\n" and now["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_what_a_command_fetched_is_there_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tiny_model()
    model.push_to_hub(NAME)
    assert main(["generate", "--model", NAME, "--prompt", "a hat", "--out", str(tmp_path / "new.png")]) == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert same_weights(load(NAME), model)
    with pytest.raises(WeightsError, match="someone/else is not on this machine, and HF_HUB_OFFLINE is set"):
        locate("someone/else")
    with pytest.raises(WeightsError, match="cannot be sent to .*offline"):
        model.push_to_hub(NAME)
    assert len(hub.asked) == asked


def test_what_cannot_be_had_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_model().push_to_hub(NAME)
    with pytest.raises(WeightsError, match="someone/else is no model on http://127"):
        locate("someone/else")
    with pytest.raises(WeightsError, match="has no revision nowhere, expected a branch, tag or commit"):
        locate(NAME, revision="nowhere")
    with pytest.raises(WeightsError, match="but .* is no model on the Hub"):
        locate(tmp_path, revision="main")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    asked = len(hub.asked)
    with pytest.raises(WeightsError, match="checkpoints/avatars is no published model, no folder"):
        locate("checkpoints/avatars")
    assert len(hub.asked) == asked, "what is mistyped is nobody else's business"


def test_a_hub_that_is_not_there_and_what_is_no_model_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving_hub(monkeypatch, tmp_path / "cache"):
        pass
    with pytest.raises(WeightsError, match="someone/faces is not on this machine, and http://127.* cannot be reached"):
        locate(NAME)
    with pytest.raises(WeightsError, match="cannot be sent to someone/faces"):
        tiny_model().push_to_hub(NAME)
    with pytest.raises(WeightsError, match="config.json cannot be used"):
        push_folder(tmp_path, NAME)
    with pytest.raises(WeightsError, match="the name is 'faces', expected owner/name"):
        push_folder(tmp_path, "faces")


def test_code_in_a_repository_is_never_run(hub: Hub) -> None:
    config = {"format": "imagebart", "version": 2, "auto_map": {"AutoModel": "evil.Model"}}
    hub.commit(NAME, "main", {"config.json": json.dumps(config).encode(), "evil.py": b"1/0", "model.bin": b"\x80"})
    with pytest.raises(WeightsError, match="config.json"):
        load(NAME)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("evil.py"))
