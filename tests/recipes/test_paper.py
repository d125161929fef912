"""The experiment of the paper's claim: bound and samples against all chains of a tiny image; a whole run."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from oracles import binomial_z
from tiny_models import tiny_first_stage, tiny_transformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from imagebart.model import ImageBART
from imagebart.models.denoiser import Stage, StageConfig
from imagebart.models.diffusion import Schedule
from imagebart.models.vqgan import FirstStage
from imagebart.weights.folder import load_networks
from recipes.paper import evaluation
from recipes.paper.__main__ import main

KEEP = torch.tensor([False, True, False, False])
X0 = torch.tensor([2, 0, 1, 2])


def chain_of_three_codes() -> ImageBART:
    """T = 2 on 2 x 2 tokens, with weights far from zero."""
    torch.manual_seed(1)
    shapes = {"vocab_size": 3, "tokens": 4}
    fine = tiny_transformer(3, 4, cross=True, vocab_out=3), tiny_transformer(3, 5, causal=False)
    stages = [
        Stage(StageConfig(kind="encoder_decoder", t=1, beta=0.5, decoder=fine[0], encoder=fine[1], **shapes), 2),
        Stage(
            StageConfig(kind="decoder_only", t=2, beta=1.0, decoder=tiny_transformer(3, 5, vocab_out=3), **shapes), 2
        ),
    ]
    for parameter in (p for stage in stages for p in stage.parameters() if p.ndim > 1):
        parameter.data *= 8
    return ImageBART(FirstStage(tiny_first_stage(resolution=8, codebook_size=3)), stages, schedule=Schedule((0.5, 1.0)))


STATES = torch.tensor(list(product(range(3), repeat=4)))
POSSIBLE = STATES[STATES[:, 1] == X0[1]]  # with what is kept


def probabilities(stage: Stage, x_s: torch.Tensor, x_t: torch.Tensor) -> torch.Tensor:
    """p(masked tokens of x_s | x_t), of every pair of rows, [rows of x_t, rows of x_s]."""
    targets, given = x_s.repeat(len(x_t), 1), x_t.repeat_interleave(len(x_s), 0)
    log_p = stage(targets, given).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    return (log_p * ~KEEP).sum(1).exp().view(len(x_t), len(x_s))


def noised(probability: float) -> torch.Tensor:
    """The probability of each state, as x_t, after noise on all tokens of each possible x_0."""
    same = (POSSIBLE[:, None] == STATES[None]).float()
    return ((1 - probability) * same + probability / 3).prod(-1)


@pytest.mark.slow
def test_the_bound_and_the_samples_are_those_of_all_chains() -> None:
    model = chain_of_three_codes()
    with torch.no_grad():
        blind = probabilities(model.stages[1], POSSIBLE, X0[None])[0]
        back = probabilities(model.stages[0], POSSIBLE, STATES)
    clean = back[STATES[:, 1] == X0[1]]  # kept tokens of x_1 are clean
    one_round = blind @ clean
    three_rounds = one_round @ (noised(2 / 3 * 0.5) @ back) @ (noised(1 / 3 * 0.5) @ back)
    truth = int((POSSIBLE == X0).all(1).nonzero())
    q = (((POSSIBLE == X0) * 0.5 + 0.5 / 3) * ~KEEP + KEEP).prod(1)
    elbo = float((q * (q / (blind * clean[:, truth])).log()).sum())
    rows, masked = X0.expand(2000, -1), ~KEEP.expand(2000, -1)
    bounds = 3 * evaluation.bound(model, rows, masked, seed=0)
    assert float(bounds.mean()) == pytest.approx(elbo, abs=float(4 * bounds.std() / 2000**0.5))
    assert elbo > -one_round[truth].log()
    for rounds, expected in ((1, one_round), (3, three_rounds)):
        made = [tuple(row) for row in evaluation.completed(model, rows, masked, rounds, False, seed=0).tolist()]
        for state, probability in zip(POSSIBLE.tolist(), expected.tolist(), strict=True):
            assert abs(binomial_z(made.count(tuple(state)), len(made), probability)) < 4
    assert (one_round - three_rounds).abs().max() > 0.02, "rounds differ by more than samples do"


@pytest.mark.slow
def test_an_experiment_spends_the_same_on_every_arm_goes_on_and_measures(tmp_path: Path, capsys) -> None:
    ImageBART(FirstStage(tiny_first_stage(resolution=16))).save_pretrained(tmp_path / "first-stage")
    shape = {"width": 16, "depth": 1, "heads": 2, "head_size": 8, "encoder_depth": 1}
    arms = {
        "one": {"kept": [0.0], "coarsest": {**shape, "depth": 3}},
        "two": {"kept": [0.5, 0.0], "coarsest": shape, "finer": shape},
        "masks": {"kept": [0.5, 0.0], "coarsest": shape, "finer": shape, "kind": "masked"},
        "joint": {"kept": [0.5, 0.0], "finer": shape, "kind": "joint"},
        "ours": {"finer": shape, "kind": "denoiser"},
    }
    loop = {"steps": 16, "batch_size": 4, "mixed_precision": "no", "warmup": 1}
    data = {"first_stage": f"{tmp_path / 'first-stage'}", "images": 16, "held_out": 6, "test_steps": 1}
    settings = data | {"loop": loop, "arms": arms}
    config, run = tmp_path / "paper.json", tmp_path / "run"
    config.write_text(json.dumps(settings))
    assert main(["train", str(config), str(run)]) == 0
    spent = dict.fromkeys(arms, 0)
    for line in capsys.readouterr().out.splitlines():
        folder, steps = Path(line.split(":")[0]), int(line.split()[-2])
        x = torch.zeros(4, 16, dtype=torch.long)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it counts no other attention
            if (model := load_networks(folder)).denoiser is not None:
                model.denoiser(x, x == 0, x, 1.0 + x, 0.0 * x)
            else:
                model.stages[0](x, x)
        spent[folder.parent.name] += steps * counter.get_total_flops()
    assert list(spent.values()) == pytest.approx([spent["one"]] * 5, rel=0.07)
    assert main(["train", str(config), str(run)]) == 0
    assert capsys.readouterr().out == "", "all arms are trained"
    assert main(["evaluate", str(config), str(run)]) == 2
    assert "5 trained arms and 0 such images" in capsys.readouterr().err
    assert main(["evaluate", str(config), str(run), "--first", "0", "--count", "6"]) == 0
    header, *rows = (run / "figures.md").read_text(encoding="utf-8").splitlines()
    assert header == "| measure | one | two | masks | joint | ours |"
    assert len(rows) > 40
    assert (run / "figures.png").exists()
