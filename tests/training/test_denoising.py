"""Training the denoiser: what it is shown, what it is asked, and runs that end where they should."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from oracles import binomial_z
from PIL import Image
from tiny_models import tiny_first_stage, tiny_model
from torch import Tensor, nn

from imagebart.conditioning import ClassConditioner
from imagebart.config import from_dict
from imagebart.inpainting import encode_color_hints
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import DenoiserRun, LoopConfig, ModelParts, StageShape
from imagebart.training.denoiser import DenoiserTask, begin_to_glance, denoiser_config, train_denoiser
from imagebart.training.loop import Batch
from imagebart.training.masks import Step, random_masks
from imagebart.training.parts import assemble, load_text_encoder
from imagebart.training.token_task import text_config
from imagebart.weights.folder import Part, load_part, save_part
from recipes.avatars.conditioner import avatar_conditioner
from recipes.avatars.training import AVATARS, CaptionsRun, train_captions

from .test_first_stage import SMALL

SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)
LOOP = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, mixed_precision="no")
WHATEVER = DenoiserRun(data="avatars", first_stage="nowhere", loop=LOOP)


class Watched(nn.Module):
    """A denoiser that takes note of what it is given, and says nothing of it."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.config, self.encode_prompt = denoiser.config, denoiser.encode_prompt
        self.given: list[tuple[Any, ...]] = []
        self.said: list[Tensor] = []

    def forward(self, *given: Any) -> tuple[Tensor, Tensor]:
        self.given.append(given)
        shape, wanted = (*given[0].shape, self.config.vocab_size), given[-1]
        self.said = [torch.randn(shape), torch.randn(shape)]
        return self.said[0][wanted], self.said[1][wanted]


class Known(DenoiserTask):
    """Takes tokens for pictures, so that what is known is known here, too."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return random_masks(len(x0), 8).float(), x0, None


class Cut(Known):
    """Of each picture, some cells are kept, some are painted whole, and some cut: what is left of these is another."""

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        noise_level = torch.tensor([0, 0.25, 0.75, 1])[torch.randint(4, x0.shape)]
        return noise_level, torch.where(noise_level > 0, (x0 + 1) % 24, x0), None


def task_of(**changes: Any) -> tuple[Known, Watched]:
    model = tiny_model("text")
    assert model.denoiser is not None
    run = replace(WHATEVER, **changes)
    return Known(model.denoiser, model.conditioner, model.first_stage, [], run), Watched(model.denoiser)  # type: ignore[arg-type]


def trained_on(batch: int, seed: int = 0, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], Watched]:
    """x_0, and what a denoiser is given of it; the losses; the denoiser."""
    task, watched = task_of(**changes)
    torch.manual_seed(seed)
    x0 = torch.randint(24, (batch, 64))
    losses = task.loss(watched, {"image": x0, "text": ["red hair"] * batch}, Accelerator(cpu=True))
    x_s, given, _ = watched.given[0]
    return {"x0": x0, "x_s": x_s, **vars(given)}, losses, watched


def test_what_is_kept_is_shown_as_it_is_at_rate_0() -> None:
    given, _, _ = trained_on(200)
    kept = given["noise_t"] == 0
    assert 0.1 < kept.float().mean() < 0.6
    for name in ("x_s", "x_t"):
        assert torch.equal(given[name][kept], given["x0"][kept])
    assert (given["noise_s"][kept] == 0).all()
    for row, unknown in zip(given["noise_t"], ~kept, strict=True):
        assert len(row[unknown].unique()) == 1, "one rate a picture"


def test_noise_is_that_of_its_rate() -> None:
    """Of tokens to draw, x_t differs from x_0 by r_t, x_s by r_s, x_t from x_s by beta: within four deviations."""
    given, _, _ = trained_on(400, decoder_corruption=0.0)
    noise_t, fed = given["noise_t"].double(), given["noise_s"].double()
    unknown = noise_t > 0
    pairs = {"c": (given["x_t"] != given["x0"], noise_t), "x": (given["x_s"] != given["x0"], fed)}
    pairs["step"] = (given["x_t"] != given["x_s"], 1 - (1 - noise_t) / (1 - fed))
    for name, (changed, rate) in pairs.items():
        expected = rate[unknown] * 23 / 24
        deviation = (expected * (1 - expected)).sum().sqrt()
        assert abs(changed[unknown].sum() - expected.sum()) < 4 * deviation, name
    final = (fed == 0) & unknown
    assert torch.equal(given["x_s"][final], given["x0"][final]), "x_s is x_0 where its rate is 0"


def test_scrambling_is_of_tokens_to_draw_in_final_steps_only() -> None:
    """In a share of them, and by parts from none to all."""
    given, _, _ = trained_on(600, decoder_corruption=0.4)
    kept = given["noise_t"] == 0
    final = (given["noise_s"] == 0).all(1)
    changed = given["x_s"] != given["x0"]
    assert not changed[kept].any()
    some = (changed & ~kept)[final].any(1)
    count = int(some.sum())  # a small part may come out as nothing
    assert binomial_z(count, len(some), 0.4 * 0.97) > -4 and binomial_z(count, len(some), 0.4) < 4
    parts = (changed.sum(1) / (~kept).sum(1))[final][some]
    assert parts.min() < 0.2 and parts.max() > 0.8
    # Of other steps it is x_s, whose noise is that of its rate.
    noise_t = given["noise_s"].double()[~final]
    expected = noise_t * 23 / 24
    assert abs(changed[~final].sum() - expected.sum()) < 4 * (expected * (1 - expected)).sum().sqrt()


def test_cut_cells_are_seen_at_the_share_that_is_painted_until_the_step_ends_below_it() -> None:
    model = tiny_model("none")
    assert model.denoiser is not None
    task = Cut(model.denoiser, model.conditioner, model.first_stage, [], replace(WHATEVER, decoder_corruption=0.0))  # type: ignore[arg-type]
    torch.manual_seed(1)
    watched, x0 = Watched(model.denoiser), torch.randint(24, (300, 64))
    task.loss(watched, {"image": x0, "text": [""] * 300}, Accelerator(cpu=True))  # type: ignore[dict-item]
    x, c, noise_t, noise_s, _, _, _, wanted = watched.given[0]
    left = (x0 + 1) % 24
    for row in range(300):
        rate, noise_s = noise_t[row].max(), noise_s[row].max()
        for cell in range(64):
            noise_level = noise_t[row, cell] if noise_t[row, cell] < rate else None
            if noise_level is not None and noise_level > 0:
                assert noise_level in (0.25, 0.75) and c[row, cell] == left[row, cell]
                assert wanted[row, cell] == (noise_level > noise_s) and noise_s[row, cell] == min(noise_level, noise_s)
                if not wanted[row, cell]:
                    assert x[row, cell] == left[row, cell]
                elif noise_s == 0:
                    assert x[row, cell] == x0[row, cell]
    assert torch.equal(wanted, noise_t > noise_s)


def test_masks_of_pictures_leave_what_is_beside_the_paint() -> None:
    """Whole cells are kept or not, and of cut ones the token does not depend on what is painted."""
    model = tiny_model("none")
    assert model.denoiser is not None
    task = DenoiserTask(model.denoiser, model.conditioner, model.first_stage, [], WHATEVER)  # type: ignore[arg-type]
    images = torch.randint(256, (60, 3, 32, 32), dtype=torch.uint8)
    x0 = task.encode(images)
    noise_level, left, color_hints = task.masked({"image": images}, x0)
    assert color_hints is None
    kept, cut = noise_level == 0, (noise_level > 0) & (noise_level < 1)
    assert kept.float().mean() > 0.1 and cut.float().mean() > 0.02 and (noise_level == 1).float().mean() > 0.3
    assert torch.equal(left[kept], x0[kept]) and (left[cut] != x0[cut]).any()
    assert torch.equal((noise_level * 16).round(), noise_level * 16), "strokes end on quarters of a cell"


def test_the_denoiser_is_told_of_kept_colours_but_of_a_share_of_pictures_none() -> None:
    model = tiny_model("none", color_hint_grid=2)
    assert model.denoiser is not None
    run = replace(WHATEVER, color_hint_grid=2, color_hint_dropout=0.3)
    task = DenoiserTask(model.denoiser, model.conditioner, model.first_stage, [], run)  # type: ignore[arg-type]
    quarters = torch.randint(256, (300, 3, 16, 16), dtype=torch.uint8)
    images = quarters.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x0 = task.encode(images)
    noise_level, _, color_hints = task.masked({"image": images}, x0)
    assert color_hints is not None and not color_hints[noise_level == 1].any()
    unpainted = torch.zeros(300, 32, 32, dtype=torch.bool)
    whole = encode_color_hints(model.first_stage, images.float() / 127.5 - 1, unpainted, 2)
    shown = color_hints.flatten(1).any(1)
    keeps = ((noise_level == 0)[..., None] & whole).flatten(1).any(1)
    assert not shown[(noise_level == 1).all(1)].any()
    assert abs(binomial_z(int(shown[keeps].sum()), int(keeps.sum()), 0.7)) < 4
    kept = (noise_level == 0) & shown[:, None]
    assert torch.equal(color_hints[kept], whole[kept])
    watched = Watched(model.denoiser)
    task.loss(watched, {"image": images[:20], "text": [""] * 20}, Accelerator(cpu=True))  # type: ignore[dict-item]
    assert watched.given[0][-2].shape == (20, 64, 24)


def test_a_colour_begins_as_a_louder_cell_that_is_all_of_it() -> None:
    denoiser = tiny_model("none", color_hint_grid=2).denoiser
    assert denoiser is not None
    begin_to_glance(denoiser)
    color_hints = torch.zeros(1, 64, 24, dtype=torch.bool)
    color_hints[0, 3, [5, 7]] = True
    told = denoiser.glance(color_hints.float())[0]
    table = denoiser.encoder.token_embedding.weight
    torch.testing.assert_close(told[3], 2 * (table[5] + table[7]))
    assert not told[:3].any() and not told[4:].any()


def test_the_share_that_is_scrambled() -> None:
    task, _ = task_of(decoder_corruption=0.3)
    step = Step(torch.ones(4000, 1), torch.where(torch.arange(4000)[:, None] < 2000, 0.0, 0.5))
    share = task.scrambled(step)
    assert share.shape == (4000, 1) and (share[2000:] == 0).all()
    some = share[:2000][share[:2000] > 0]
    assert abs(binomial_z(len(some), 2000, 0.3)) < 4
    assert abs(some.mean() - 0.5) < 4 / 12**0.5 / len(some) ** 0.5


def test_loss_is_that_of_tokens_to_draw_and_of_no_others() -> None:
    """By hand, position by position; drafts count for their weight."""
    given, losses, watched = trained_on(20, drafts=0.3)
    unknown, x0 = given["noise_t"] > 0, given["x0"]
    parts = []
    for logits in watched.said:
        places = unknown.nonzero().tolist()
        parts.append(torch.stack([-logits[b, n].log_softmax(-1)[x0[b, n]] for b, n in places]).mean())
    torch.testing.assert_close(losses["tokens"], parts[0])
    torch.testing.assert_close(losses["drafts"], parts[1])
    torch.testing.assert_close(losses["loss"], parts[0] + 0.3 * parts[1])
    right = [int(watched.said[0][b, n].argmax()) == int(x0[b, n]) for b, n in unknown.nonzero().tolist()]
    assert losses["accuracy"].item() == pytest.approx(sum(right) / len(right))


def test_captions_are_left_out_for_a_share() -> None:
    given, _, watched = trained_on(2000, drop=0.3, query_token_dropout=0.0)
    nothing = (given["cond"] == 0).all(1)
    assert abs(binomial_z(int(nothing.sum()), 2000, 0.3)) < 4
    expected = watched.encode_prompt(given["cond"])
    torch.testing.assert_close(given["prompt_embeds"], expected)


def test_slots_are_left_out_for_a_share_of_captions() -> None:
    """Any part of them; what stands in their place is what is read in nothing."""
    given, _, watched = trained_on(2000, drop=0.0, query_token_dropout=0.5)
    assert (given["cond"] != 0).any(1).all()
    told, silent = (
        watched.encode_prompt(given["cond"][:1])[0],
        watched.encode_prompt(torch.zeros_like(given["cond"][:1]))[0],
    )
    is_told = torch.isclose(given["prompt_embeds"], told, atol=1e-4).all(-1)
    is_silent = torch.isclose(given["prompt_embeds"], silent, atol=1e-4).all(-1)
    assert (is_told ^ is_silent).all()
    # Half of the captions, and of their slots a part between none and all: a quarter of all slots.
    assert abs(is_silent.float().mean() - 0.25) < 4 * 0.25 / 2000**0.5 * 1.5
    counts = is_silent.sum(1).bincount(minlength=4) / 2000
    for missing, share in enumerate((0.5 + 0.125, 0.125, 0.125, 0.125)):  # uniform: a part of 3 slots
        assert abs(counts[missing] - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_a_task_without_captions() -> None:
    model = tiny_model("none")
    assert model.denoiser is not None
    task = DenoiserTask(model.denoiser, model.conditioner, model.first_stage, [], WHATEVER)  # type: ignore[arg-type]
    assert task.condition(model.denoiser, ["", ""], torch.device("cpu")) == (None, None)
    classes = tiny_model("class")
    conditioner = ClassConditioner(("cat", "dog", "bird"), null_class=True)
    assert classes.denoiser is not None
    task = DenoiserTask(classes.denoiser, conditioner, classes.first_stage, [], replace(WHATEVER, drop=1.0))  # type: ignore[arg-type]
    cond, prompt_embeds = task.condition(classes.denoiser, ["cat", "dog"], torch.device("cpu"))
    assert cond is not None and cond.tolist() == [[3], [3]] and prompt_embeds is None


def test_shapes_are_those_of_the_tiny_model() -> None:
    """A vocabulary of codes, then slots or conditioning tokens, then the start."""
    conditioner = avatar_conditioner(60)
    bare = denoiser_config(SHAPE, tiny_first_stage(), ClassConditioner(("a", "b"), null_class=True), None)
    assert (bare.encoder.vocab_in, bare.encoder.positions, bare.cond_length) == (24 + 3 + 1, 1 + 1 + 64, 1)
    text = text_config(SHAPE, conditioner)
    config = denoiser_config(SHAPE, tiny_first_stage(), conditioner, text)
    assert (config.encoder.vocab_in, config.encoder.positions, config.cond_length) == (24 + 14 + 1, 1 + 14 + 64, 60)
    assert config.decoder.cross and config.decoder.causal and config.decoder.vocab_out == 24
    assert not config.encoder.causal and config.encoder.vocab_out is None


# Runs


def two_classes(folder: Path) -> DenoiserRun:
    """Two classes, each of one colour."""
    for name, colour in (("dark", 20), ("light", 235)):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), (colour + i,) * 3).save(folder / "data" / name / f"{i}.png")
    save_part(Part(FirstStage(SMALL)), folder / "first")
    loop = LoopConfig(
        steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no", save_every=80, sample_every=80
    )
    places = {"data": str(folder / "data"), "first_stage": str(folder / "first")}
    return DenoiserRun(**places, loop=loop, shape=replace(SHAPE, query_tokens=3), conditioning="class")


def test_a_denoiser_is_trained_on_a_folder_of_classes_and_assembled(tmp_path: Path) -> None:
    """It draws the colour of the class that is asked for, in one step and in four."""
    trained = train_denoiser(two_classes(tmp_path), tmp_path / "denoiser")
    assert (tmp_path / "denoiser" / "samples" / "0000080.png").is_file()
    model = assemble(tmp_path / "first", tmp_path / "denoiser", About("two", "squares"))
    assert isinstance(model.conditioner, ClassConditioner) and model.conditioner.names == ("dark", "light")
    assert model.denoiser is not None
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], tensor)
    for index, colour in enumerate((20, 235)):
        wanted = model.first_stage.encode(torch.full((1, 3, 16, 16), colour / 127.5 - 1))
        for scales in (1, 4):
            drawn = model.sample(8, cond=torch.full((8, 1), index), scales=scales, seed=1)
            assert (drawn == wanted).float().mean() > 0.8, (index, scales)


def test_a_killed_run_ends_where_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameter by parameter, and on from where it was."""
    run = two_classes(tmp_path)
    run = replace(run, loop=replace(run.loop, steps=6, save_every=2, sample_every=6))
    whole = train_denoiser(run, tmp_path / "whole").state_dict()
    steps: list[int] = []

    def killed(task: DenoiserTask, model: nn.Module, accelerator: Accelerator) -> None:
        steps.append(len(steps) + 1)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DenoiserTask, "after_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_denoiser(run, tmp_path / "broken")
    assert not (tmp_path / "broken" / "part.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(DenoiserTask, "after_step", lambda *_: steps.append(0))
        resumed = train_denoiser(run, tmp_path / "broken").state_dict()
    assert steps == [1, 2, 3, 4, 5, 0, 0]  # two were saved twice
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    standing = replace(run, init_from=str(tmp_path / "whole"), loop=replace(run.loop, lr=0.0))
    begun = train_denoiser(standing, tmp_path / "on")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in begun.state_dict().items())


def test_a_denoiser_that_knew_whole_cells_alone_goes_on_with_glances(tmp_path: Path) -> None:
    """It has what it knew, and is told of colours as of cells; one that sees beyond a cell cannot tell of any."""
    run = two_classes(tmp_path)
    run = replace(run, loop=replace(run.loop, steps=1, lr=0.0))
    with pytest.raises(
        ValueError, match="color_hint_grid is 2, but the first stage's encoder is of kind 'convolutions'"
    ):
        train_denoiser(replace(run, color_hint_grid=2), tmp_path / "refused")
    save_part(Part(FirstStage(replace(SMALL, encoder="patch"))), tmp_path / "first")
    with pytest.raises(ValueError, match="color_hint_grid is 3, expected a divisor of 4"):
        train_denoiser(replace(run, color_hint_grid=3), tmp_path / "refused")
    knew = train_denoiser(run, tmp_path / "knew").state_dict()
    goes_on = replace(run, color_hint_grid=2, init_from=str(tmp_path / "knew"))
    seeing = train_denoiser(goes_on, tmp_path / "seeing")
    assert all(torch.equal(seeing.state_dict()[name], tensor) for name, tensor in knew.items())
    with pytest.raises(RuntimeError, match="Missing key"):  # of another depth
        train_denoiser(replace(goes_on, shape=replace(run.shape, depth=2)), tmp_path / "deeper")
    codes = seeing.encoder.token_embedding.weight[: seeing.config.vocab_size]
    assert seeing.config.color_hint_grid == 2 and torch.equal(seeing.glance.weight, 2 * codes.T)


def test_a_denoiser_takes_a_text_encoder_over_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    save_part(Part(FirstStage(SMALL)), tmp_path / "first")
    train_captions(CaptionsRun(LOOP, SHAPE, text_length=60), tmp_path / "captions")
    reads = load_text_encoder(tmp_path / "captions")[0].state_dict()
    run = replace(WHATEVER, first_stage=str(tmp_path / "first"), shape=SHAPE, text_length=60)
    taking = train_denoiser(replace(run, text_from=str(tmp_path / "captions")), tmp_path / "taking", AVATARS)
    for name, tensor in reads.items():
        assert torch.equal(tensor, taking.text.state_dict()[name])
    free = train_denoiser(replace(run, init_from=str(tmp_path / "taking")), tmp_path / "free", AVATARS)
    weight = "transformer.token_embedding.weight"
    assert not torch.equal(reads[weight], free.text.state_dict()[weight])
    model = assemble(tmp_path / "first", tmp_path / "free", About(), tmp_path / "captions")
    assert model.text is not None and torch.equal(model.text.state_dict()[weight], reads[weight])


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="conditioning is 'words', expected one of text, class, none"):
        from_dict(DenoiserRun, {**asdict(WHATEVER), "conditioning": "words"})
    with pytest.raises(ValueError, match="text_from names a text encoder; conditioning is 'none', expected text"):
        replace(WHATEVER, conditioning="none", text_from="captions")
    for denoiser, stages in ((None, ()), ("denoiser", ("stage1",))):
        with pytest.raises(ValueError, match="expected one of the two"):
            ModelParts("first", About(), denoiser, stages)
    with pytest.raises(ValueError, match="avatars have captions, expected text or none"):
        save_part(Part(FirstStage(SMALL)), tmp_path)
        train_denoiser(replace(WHATEVER, first_stage=str(tmp_path), conditioning="class"), tmp_path / "run", AVATARS)
    assert load_part(tmp_path, FirstStage).module.config == SMALL
