"""The training loop: settings, steps, learning rate, resuming to the step, several processes, and Muon."""

import json
import math
import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_injection import killed_at_every_step, run_in_fork
from published_files import zipped
from tiny_models import tiny_first_stage
from tiny_runs import LINE_LOOP, Line, in_processes, stop_after, train_line
from torch import nn

from imagebart.core.errors import InputError
from imagebart.models.transformer import Transformer, TransformerConfig
from imagebart.models.vqgan import FirstStage
from imagebart.training import loop
from imagebart.training.config import FirstStageLoss, LoopConfig, StageRun, load
from imagebart.training.loop import Muon, learning_rate, optimizers_for, orthogonal, read_log, step_batches, train
from imagebart.training.vqgan import FirstStageTask


@pytest.fixture(autouse=True)
def saved_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)


def test_settings_are_read_from_a_file_which_is_named_where_it_has_none(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    values = {"data": "", "first_stage": "", "loop": {"steps": 3}, "betas": [0.5, 1.0], "t": 2}
    with pytest.raises(InputError, match=r"cannot read the configuration .*run\.json"):
        load(StageRun, path)
    path.write_text(json.dumps(values))
    run = load(StageRun, path)
    assert (run.loop.steps, run.betas, run.conditioning_dropout) == (3, (0.5, 1.0), 0.1)
    for text in ("[1, 2]", "{broken", "7", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(InputError, match=r"cannot read the configuration .*run\.json, expected a JSON object"):
            load(StageRun, path)
    for change, said in (
        ({"loop": {"steps": 3, "hours": 1}}, "steps is 3 and hours 1.0, expected one of the two"),
        ({"conditioning": "class", "text_from": "c"}, "text_from names a text encoder; conditioning is 'class'"),
        ({"t": 0}, "t is 0, expected 1 to 2, the number of betas"),
    ):
        with pytest.raises(InputError, match=said):
            StageRun.from_json(json.dumps({**values, **change}))


def test_learning_rate_warms_up_then_follows_a_cosine() -> None:
    config = LoopConfig(steps=110, warmup=10, final_lr=0.05)
    assert [learning_rate(config, s, s / 110) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(config, 60, 60 / 110) == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert learning_rate(config, 110, 1.0) == pytest.approx(0.05)


def first_batches(count: int, *args: int, **options: int) -> list[list[int]]:
    return list(islice(step_batches(*args, **options), count))


def test_batches_from_the_middle_and_of_several_processes_are_those_of_a_whole_run() -> None:
    whole = first_batches(12, 10, 4, 0, seed=5)
    assert first_batches(5, 10, 4, 7, seed=5) == whole[7:]
    first_epochs = [n for batch in whole[:5] for n in batch]
    assert sorted(first_epochs[:10]) == sorted(first_epochs[10:20]) == list(range(10))
    assert first_epochs[:10] != first_epochs[10:20]
    parts = [first_batches(7, 13, 2, 2, seed=4, rank=rank, processes=3) for rank in range(3)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == first_batches(7, 13, 6, 2, seed=4)
    # Endless data are read in order, and other ones for another seed.
    assert first_batches(2, 10**9, 3, 2, seed=0) == [[6, 7, 8], [9, 10, 11]]
    first, second = (set(sum(first_batches(50, 10**9, 3, 0, seed), [])) for seed in (3, 4))
    assert len(first) == len(second) == 150 and not first & second


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = train(Line(), LINE_LOOP, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(stop_after(27, Line()), LINE_LOOP, tmp_path / "broken")
    resumed = train(Line(), LINE_LOOP, tmp_path / "broken")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    log = read_log(tmp_path / "whole")
    assert [record["step"] for record in log] == list(range(5, 41, 5))
    assert log[-1]["loss"] < log[0]["loss"] / 10
    hours = [record["hours"] for record in read_log(tmp_path / "broken")]
    assert len(hours) == len(log) and hours == sorted(hours)
    assert (tmp_path / "whole" / "samples" / "0000040.png").is_file()


def test_a_run_killed_at_any_file_operation_is_resumed(tmp_path: Path) -> None:
    """Three steps, the state saved and logged at each; killed, resumed, and saved again."""
    expected = train_line(tmp_path / "whole", 4)
    train_line(tmp_path / "begun", 2)

    def ends_alike() -> None:
        assert all(torch.equal(a, b) for a, b in zip(train_line(tmp_path / "broken", 4), expected, strict=True))

    for step in killed_at_every_step(lambda: train_line(tmp_path / "broken", 3)):
        assert run_in_fork(ends_alike) == 0, step
        shutil.rmtree(tmp_path / "broken")
        shutil.copytree(tmp_path / "begun", tmp_path / "broken")


def test_a_run_ends_after_its_hours_and_goes_on_with_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hours before it was stopped count; the learning rate falls by the share of them that is over."""
    seconds = iter(range(10**6))  # one passes with each look at the clock
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))

    def rates(hours: float) -> list[float]:
        train(Line(), LINE_LOOP.replace(steps=None, hours=hours, warmup=0, log_every=1), tmp_path)
        return [record["lr"] for record in read_log(tmp_path)]

    first = rates(200 / 3600)
    assert len(first) > 20 and first == sorted(first, reverse=True) and first[-1] < 0.1 * first[0]
    assert rates(200 / 3600) == first, "nothing is left to do"
    further = rates(400 / 3600)
    assert further[: len(first)] == first and further[len(first)] == pytest.approx(0.5 * LINE_LOOP.lr, rel=0.1)


def test_a_damaged_state_is_named_and_code_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = zipped({"archive/data.pkl": b"cos\nmkdir\n(X\3\0\0\0rantR.", "archive/version": b"3\n"})
    for content in (b"", b"PK\x03\x04" + b"\x80" * 99, program):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"state\.pt is damaged, or of another run .*delete it to start .* step 0"):
            train_line(tmp_path, 3)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "state.pt", weights_only=False)
    assert (tmp_path / "ran").is_dir(), "it would have run"


def learn(folder: Path, batch_size: int, steps: int) -> None:
    """Trains a first stage, without random numbers."""
    torch.manual_seed(0)
    images: Any = [{"image": torch.randint(256, (3, 32, 32), dtype=torch.uint8)} for _ in range(13)]
    loss = FirstStageLoss(dead_code_threshold=0.0)
    task = FirstStageTask(FirstStage(tiny_first_stage()), images, torch.ones(32, 32), loss)
    config = LoopConfig(steps=steps, batch_size=batch_size, lr=1e-3, mixed_precision="no", log_every=1)
    model = train(task, config, folder)
    if os.environ.get("RANK", "0") == "0":
        torch.save(model.state_dict(), folder / "trained.pt")


@pytest.mark.release
def test_two_processes_do_what_one_does_with_twice_the_batch(tmp_path: Path) -> None:
    """Stopped on the way and resumed, too."""
    learn(tmp_path / "one", 4, 4)
    for steps in (2, 4):
        assert in_processes(2, lambda steps=steps: learn(tmp_path / "two", 2, steps)) == [0, 0]
    one, two = (torch.load(tmp_path / name / "trained.pt") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)
    assert [record["step"] for record in read_log(tmp_path / "two") if "loss" in record] == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
def test_orthogonal_keeps_directions_and_evens_out_singular_values(shape: tuple[int, int]) -> None:
    u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -1.3, u.shape[1], dtype=torch.float64)
    inner = u.T @ orthogonal(u @ values.diag() @ vh) @ vh.T
    assert ((inner.diag() > 0.6) & (inner.diag() < 1.25)).all()
    assert (inner - inner.diag().diag()).abs().max() < 1e-9


def test_the_second_step_of_a_convolution_looks_ahead_along_the_momentum() -> None:
    """Its kernel is a matrix with a row for each output channel; a step has the size of AdamW's; decay comes on top."""
    first, second = torch.randn(2, 6, 4, 3, 3)
    p = nn.Parameter(torch.randn(6, 4, 3, 3))
    muon = Muon([p], lr=0.1, momentum=0.5, weight_decay=0.5)
    for gradient in (first, second):
        before, p.grad = p.detach().clone(), gradient.clone()
        muon.step()
    ahead = second + 0.5 * (0.5 * first + second)  # Nesterov's
    step = 0.2 * 36**0.5 * orthogonal(ahead.flatten(1))
    assert 0.14 < step.square().mean().sqrt() < 0.25 and (step * second.flatten(1)).sum() > 0
    assert torch.allclose(p.detach().flatten(1), before.flatten(1) * (1 - 0.1 * 0.5) - 0.1 * step, atol=1e-6)


def test_muon_has_the_matrices_of_blocks_and_adamw_all_else() -> None:
    shape = TransformerConfig(width=16, depth=2, heads=2, vocab_in=5, positions=4, head_size=8, vocab_out=5)
    model = Transformer(shape)
    adamw, muon = optimizers_for(nn.ModuleDict({"decoder": model}), LoopConfig(steps=1, optimizer="muon"))
    inside, decayed, others = ({id(p) for p in g["params"]} for g in (*muon.param_groups, *adamw.param_groups))
    matrices = {id(p) for p in model.parameters() if p.ndim >= 2}
    assert inside == {id(p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    assert decayed == matrices - inside and others == {id(p) for p in model.parameters()} - matrices
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.05, 0.0]
