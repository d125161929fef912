"""Steps, learning rate, and resuming to the step."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from fault_injection import apart, killed_at_every_step, without_room
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.training.config import LoopConfig
from imagebart.training.loop import StepBatchSampler, hours_so_far, learning_rate, read_log, train


class Numbers(Dataset[dict[str, Any]]):
    """y = 3 x - 1, with noise that the loop draws."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([index / 50.0])}


class Line:
    """Fits a line; the smallest thing that the loop can train."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Linear(1, 1)
        self.dataset = Numbers()

    def loss(self, model: nn.Module, batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Tensor]:
        noise = 0.01 * torch.randn_like(batch["x"])
        return {"loss": (model(batch["x"]) - (3 * batch["x"] - 1) + noise).square().mean()}

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None: ...

    def state(self) -> list[Any]:
        return []

    def sample(self, model: nn.Module) -> Image.Image:
        return Image.new("RGB", (2, 2))


CONFIG = LoopConfig(
    steps=40,
    batch_size=7,
    lr=0.1,
    warmup=5,
    ema=0.9,
    mixed_precision="no",
    log_every=5,
    save_every=10,
    sample_every=40,
)


def test_learning_rate_warms_up_then_follows_a_cosine() -> None:
    config = LoopConfig(steps=110, warmup=10, final_lr=0.05)
    assert [learning_rate(s, config) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(60, config) == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert learning_rate(110, config) == pytest.approx(0.05)


def test_batches_from_the_middle_are_those_of_a_whole_run() -> None:
    whole = list(StepBatchSampler(10, 4, 0, 12, seed=5))
    assert list(StepBatchSampler(10, 4, 7, 12, seed=5)) == whole[7:]
    first_epochs = [n for batch in whole[:5] for n in batch]
    assert sorted(first_epochs[:10]) == sorted(first_epochs[10:20]) == list(range(10))
    assert first_epochs[:10] != first_epochs[10:20]


def test_endless_data_are_read_in_order() -> None:
    assert list(StepBatchSampler(10**9, 3, 2, 4, seed=0)) == [[6, 7, 8], [9, 10, 11]]


def test_another_seed_sees_other_endless_data() -> None:
    """A run that begins from another's weights, with a seed of its own, is shown nothing that that one was."""
    first, second = (set(sum(StepBatchSampler(10**9, 3, 0, 50, seed), [])) for seed in (3, 4))
    assert len(first) == len(second) == 150 and not first & second


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StepBatchSampler(0, 3, 0, 4, seed=0)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = train(Line(), CONFIG, tmp_path / "whole")

    class Stopped(Line):
        def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 27:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), CONFIG, tmp_path / "broken")
    assert json.loads((tmp_path / "broken" / "state" / "step.json").read_text()) == {"step": 20}
    resumed = train(Line(), CONFIG, tmp_path / "broken")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == list(range(5, 41, 5))
    assert log[-1]["loss"] < log[0]["loss"] / 10
    hours = [record["hours"] for record in read_log(tmp_path / "broken")]
    assert len(hours) > len(log) and hours == sorted(hours) and hours_so_far(tmp_path / "broken") == hours[-1]
    assert hours_so_far(tmp_path / "never") == 0
    assert (tmp_path / "whole" / "samples" / "0000040.png").is_file()


def trained(folder: Path, steps: int) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    train(Line(), replace(CONFIG, steps=steps, save_every=1, sample_every=1000, log_every=1), folder)


def test_a_run_killed_at_any_doing_with_files_goes_on(tmp_path: Path) -> None:
    """Three steps, the state saved and logged at each; killed, gone on with, and saved again."""
    trained(tmp_path / "whole", 4)
    expected = torch.load(tmp_path / "whole" / "state" / "pytorch_model.bin")
    trained(tmp_path / "begun", 2)
    for step in killed_at_every_step(lambda: trained(tmp_path / "broken", 3)):
        assert apart(lambda: trained(tmp_path / "broken", 4)) == 0, step
        state = torch.load(tmp_path / "broken" / "state" / "pytorch_model.bin")
        assert state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in state), step
        assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["log.jsonl", "samples", "state"]
        shutil.rmtree(tmp_path / "broken")
        shutil.copytree(tmp_path / "begun", tmp_path / "broken")


def test_a_full_disk_costs_no_state_and_is_said(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    said = without_room(lambda: trained(tmp_path, 3), 600)  # enough for the log
    assert f"state cannot be written to {tmp_path} (" in said and "it takes" in said and "free there" in said
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 2}
    assert not (tmp_path / "state.new").exists()
    trained(tmp_path, 3)
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 3}


@pytest.mark.parametrize("half", ['{"step": 3, "lo', "\x00\x00\x00", "[1]"])
def test_half_a_line_in_the_log_ends_no_run(tmp_path: Path, half: str) -> None:
    trained(tmp_path, 2)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + half)
    trained(tmp_path, 3)
    assert [record["step"] for record in read_log(tmp_path) if "loss" in record] == [1, 2, 3]
    assert hours_so_far(tmp_path) == read_log(tmp_path)[-1]["hours"]
