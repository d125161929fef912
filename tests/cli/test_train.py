"""`imagebart train`: folders that cannot be written to, and files that end too early."""

from pathlib import Path

import pytest
import typer

from imagebart.cli.main import main, run
from imagebart.cli.options import command


@pytest.mark.parametrize(("folder", "said"), [("", "the name is empty"), (__file__, f"{__file__} is a file")])
def test_folders_that_cannot_be_made_are_refused(
    folder: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "stage", "--run", folder, "--config", str(tmp_path / "nowhere.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_file_that_ends_too_early_is_bad_input_and_no_ctrl_d(capsys: pytest.CaptureFixture[str]) -> None:
    commands = typer.Typer()

    @command(commands)
    def read(path: str) -> None:
        raise EOFError("Ran out of input")

    assert run(commands, "reader", ["a"]) == 2
    assert "A file ended too early: Ran out of input" in capsys.readouterr().err
