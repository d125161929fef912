"""Several processes train what one does with so many times the batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_processes
from tiny_models import tiny_first_stage
from torch.utils.data import Dataset

from imagebart.models.vqgan import FirstStage
from imagebart.training.config import FirstStageLoss, LoopConfig
from imagebart.training.loop import StepBatchSampler, read_log, train
from imagebart.training.vqgan import FirstStageTask


class Noise(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"image": torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)}


def learn(folder: Path, batch_size: int, steps: int) -> None:
    """A first stage whose training draws nothing at random."""
    torch.manual_seed(0)
    loss = FirstStageLoss(dead_code_threshold=0.0)
    task = FirstStageTask(FirstStage(tiny_first_stage()), Noise(), torch.ones(32, 32), loss)
    loop = LoopConfig(
        steps=steps, batch_size=batch_size, lr=1e-3, mixed_precision="no", log_every=1, save_every=2, sample_every=100
    )
    model = train(task, loop, folder)
    if os.environ.get("RANK", "0") == "0":
        torch.save(model.state_dict(), folder / "trained.pt")


def command(folder: Path, batch_size: int, steps: int) -> list[str]:
    """This file as a program."""
    return [__file__, str(folder), str(batch_size), str(steps)]


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path: Path) -> None:
    """Stopped on the way and gone on with, too."""
    assert in_processes(1, *command(tmp_path / "one", 4, 4)) == [0]
    assert in_processes(2, *command(tmp_path / "two", 2, 2)) == [0, 0]
    assert in_processes(2, *command(tmp_path / "two", 2, 4)) == [0, 0]
    one, two = (torch.load(tmp_path / name / "trained.pt") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)
    assert [record["step"] for record in read_log(tmp_path / "two")] == [1, 2, 3, 4]


def test_processes_share_each_step_out_among_them() -> None:
    whole = list(StepBatchSampler(13, 6, 2, 9, seed=4))
    parts = [list(StepBatchSampler(13, 2, 2, 9, seed=4, rank=place, world_size=3)) for place in range(3)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole


if __name__ == "__main__":
    learn(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
