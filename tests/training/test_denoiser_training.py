"""Training the denoiser: masks and noise levels, its inputs, its targets, and whole runs."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from oracles import binomial_z
from tiny_models import tiny_first_stage, tiny_model
from tiny_runs import COLORS, SHAPE, SMALL, two_classes, write_store
from torch import Tensor, nn
from torch.utils.data import default_collate

from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.vqgan import FirstStage
from imagebart.sampling.inpainting import encode_color_hints
from imagebart.text.conditioners import ClassConditioner
from imagebart.training import masks
from imagebart.training.config import DenoiserRun, LoopConfig
from imagebart.training.denoiser import DenoiserTask, denoiser_config, train_denoiser
from imagebart.training.loop import Batch
from imagebart.training.token_task import TokenDataset, conditioner_of, encode_store, load_text_encoder
from recipes.avatars.training import CaptionsRun, avatar_data, train_captions

AVATAR_SHAPE = SHAPE.replace(query_tokens=14)
LOOP = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, mixed_precision="no")
ANY_RUN = DenoiserRun(data="avatars", first_stage="nowhere", loop=LOOP)


class Recorder(nn.Module):
    """A denoiser that records its inputs and returns random logits."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.config, self.encode_prompt = denoiser.config, denoiser.encode_prompt
        self.inputs: dict[str, Any] = {}
        self.outputs: list[Tensor] = []

    def embed_hints(self, color_hints: Tensor | None, sides: Tensor | None) -> Tensor | None:
        return color_hints

    def forward(self, x_s: Tensor, wanted: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        self.inputs = {"x_s": x_s, **given, "wanted": wanted}
        self.outputs = [torch.randn(*x_s.shape, self.config.vocab_size) for _ in range(2)]
        return self.outputs[0][wanted], self.outputs[1][wanted]


class OnTokens(DenoiserTask):
    """Takes tokens for images, so that x_0 is known to the test; masks cover whole patches."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def mask(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return masks.random_masks(len(x0), 8).float(), x0, None


class OnPartialPatches(OnTokens):
    """Some patches are kept, some masked whole, and of some a part is: their tokens become the next ones."""

    def mask(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        noise_level = torch.tensor([0, 0.25, 0.75, 1])[torch.randint(4, x0.shape)]
        return noise_level, torch.where(noise_level > 0, (x0 + 1) % 24, x0), None


def task_of(model: ImageBART, kind: type[DenoiserTask] = DenoiserTask, **settings: Any) -> DenoiserTask:
    return kind(model.denoiser, model.conditioner, model.first_stage, [], ANY_RUN.replace(**settings))  # type: ignore[arg-type]


def inputs_of(
    batch: int, kind: type[DenoiserTask] = OnTokens, network: type[Recorder] = Recorder, **settings: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor], Recorder]:
    """x_0 and the inputs of a denoiser in a step; the losses; the denoiser."""
    model = tiny_model("text")
    assert model.denoiser is not None
    recorder, x0 = network(model.denoiser), torch.randint(24, (batch, 64))
    task = task_of(model, kind, **settings)
    losses = task.loss(recorder, {"image": x0, "text": ["red hair"] * batch}, Accelerator(cpu=True))
    return {"x0": x0, **recorder.inputs}, losses, recorder


def test_tokens_differ_by_their_noise_levels() -> None:
    """Of masked tokens: x_t from x_0 by noise_t, x_s by noise_s, x_t from x_s by beta, within four deviations."""
    given, _, _ = inputs_of(400, decoder_corruption=0.0)
    noise_t, noise_s = given["noise_t"].double(), given["noise_s"].double()
    unknown = noise_t > 0
    assert 0.1 < (~unknown).float().mean() < 0.6 and not noise_s[~unknown].any()
    assert all(torch.equal(given[name][~unknown], given["x0"][~unknown]) for name in ("x_s", "x_t"))
    assert torch.equal(noise_t, torch.where(unknown, noise_t.amax(1, keepdim=True), 0.0)), "one level an image"
    pairs = {"x_t": (given["x_t"] != given["x0"], noise_t), "x_s": (given["x_s"] != given["x0"], noise_s)}
    pairs["step"] = (given["x_t"] != given["x_s"], 1 - (1 - noise_t) / (1 - noise_s))
    for name, (changed, noise) in pairs.items():
        expected = noise[unknown] * 23 / 24
        deviation = (expected * (1 - expected)).sum().sqrt()
        assert abs(changed[unknown].sum() - expected.sum()) < 4 * deviation, name
    final = (noise_s == 0) & unknown
    assert torch.equal(given["x_s"][final], given["x0"][final]), "x_s is x_0 where its noise level is 0"


class AlwaysSeven(Recorder):
    """Predicts token 7, whatever it is given."""

    def forward(self, x_s: Tensor, wanted: Tensor, **given: Any) -> tuple[Tensor, Tensor]:
        super().forward(x_s, wanted, **given)
        certain = torch.full((int(wanted.sum()), self.config.vocab_size), -100.0)
        certain[:, 7] = 100
        return certain, certain


def test_decoder_input_is_corrupted_at_masked_tokens_of_steps_to_x0_only() -> None:
    """In a share of them, and by parts from none to all; in half of these by what the network samples."""
    given, _, _ = inputs_of(900, network=AlwaysSeven, decoder_corruption=0.4, own_tokens=0.5)
    kept, final = given["noise_t"] == 0, (given["noise_s"] == 0).all(1)
    changed = given["x_s"] != given["x0"]
    assert not changed[kept].any()
    some = (changed & ~kept)[final].any(1)
    count = int(some.sum())  # a small part may come out as nothing
    assert binomial_z(count, len(some), 0.4 * 0.97) > -4 and binomial_z(count, len(some), 0.4) < 4
    parts = (changed.sum(1) / (~kept).sum(1))[final][some]
    assert parts.min() < 0.2 and parts.max() > 0.8 and abs(parts.mean() - 0.5) < 4 / 12**0.5 / len(parts) ** 0.5 + 0.03
    rows = changed[final].sum(1) >= 4  # four of noise are all 7 in three images of a million
    sampled = ((given["x_s"][final] == 7) | ~changed[final]).all(1)[rows]
    assert abs(binomial_z(int(sampled.sum()), len(sampled), 0.5)) < 4
    # Of other steps it is x_s at its noise level.
    expected = given["noise_s"].double()[~final] * 23 / 24
    assert abs(changed[~final].sum() - expected.sum()) < 4 * (expected * (1 - expected)).sum().sqrt()


def test_partial_patches_are_given_at_their_coverage_until_a_step_ends_below_it() -> None:
    given, _, _ = inputs_of(300, OnPartialPatches, decoder_corruption=0.0)
    x0, x_s, x_t, noise_t, noise_s, wanted = (given[k] for k in ("x0", "x_s", "x_t", "noise_t", "noise_s", "wanted"))
    left, start, end = (x0 + 1) % 24, noise_t.amax(1, keepdim=True), noise_s.amax(1, keepdim=True)
    partial = (noise_t > 0) & (noise_t < start)
    assert partial.any() and set(noise_t[partial].tolist()) == {0.25, 0.75}
    assert torch.equal(x_t[partial], left[partial])
    assert torch.equal(wanted[partial], (noise_t > end)[partial])
    assert torch.equal(noise_s[partial], noise_t.minimum(end)[partial])
    assert torch.equal(x_s[partial & ~wanted], left[partial & ~wanted])
    to_x0 = partial & wanted & (end == 0)
    assert to_x0.any() and torch.equal(x_s[to_x0], x0[to_x0])
    assert torch.equal(wanted, noise_t > noise_s)


def test_color_hints_are_given_of_kept_parts_and_dropped_for_a_share_of_images() -> None:
    model = tiny_model("none", color_hint_grid=2)
    assert model.denoiser is not None
    task = task_of(model, color_hint_grid=2, color_hint_dropout=0.3)
    quarters = torch.randint(256, (300, 3, 16, 16), dtype=torch.uint8)
    images = quarters.repeat_interleave(2, 2).repeat_interleave(2, 3)
    noise_level, _, color_hints = task.mask({"image": images}, task.encode(images))
    assert color_hints is not None and not color_hints[noise_level == 1].any()
    whole = encode_color_hints(model.first_stage, normalize(images), torch.zeros(300, 32, 32, dtype=torch.bool), 2)
    shown = color_hints.flatten(1).any(1)
    keeps = ((noise_level == 0)[..., None] & whole).flatten(1).any(1)
    assert not shown[(noise_level == 1).all(1)].any()
    assert abs(binomial_z(int(shown[keeps].sum()), int(keeps.sum()), 0.7)) < 4
    kept = (noise_level == 0) & shown[:, None]
    assert torch.equal(color_hints[kept], whole[kept])
    recorder = Recorder(model.denoiser)
    task.loss(recorder, {"image": images[:20], "text": [""] * 20}, Accelerator(cpu=True))  # type: ignore[dict-item]
    assert recorder.inputs["hint_embeds"].shape == (20, 64, 24)


def test_the_loss_is_that_of_masked_tokens_and_of_no_others() -> None:
    """By hand, position by position; drafts count for their weight."""
    given, losses, recorder = inputs_of(20, draft_weight=0.3)
    places, x0 = (given["noise_t"] > 0).nonzero().tolist(), given["x0"]
    parts = [
        torch.stack([-logits[b, n].log_softmax(-1)[x0[b, n]] for b, n in places]).mean() for logits in recorder.outputs
    ]
    torch.testing.assert_close(losses["tokens"], parts[0])
    torch.testing.assert_close(losses["drafts"], parts[1])
    torch.testing.assert_close(losses["loss"], parts[0] + 0.3 * parts[1])
    right = [int(recorder.outputs[0][b, n].argmax()) == int(x0[b, n]) for b, n in places]
    assert losses["accuracy"].item() == pytest.approx(sum(right) / len(right))


def test_captions_and_query_tokens_are_dropped_for_a_share() -> None:
    """Any part of the query tokens; those of no caption stand in their place."""
    given, _, recorder = inputs_of(2000, conditioning_dropout=0.3, query_token_dropout=0.5)
    cond, none = given["cond"], torch.zeros_like(given["cond"][:1])
    dropped = (cond == 0).all(1)
    assert abs(binomial_z(int(dropped.sum()), 2000, 0.3)) < 4
    read, unconditional = (recorder.encode_prompt(one)[0] for one in (cond[~dropped][:1], none))
    of_kept = given["prompt_embeds"][~dropped]
    is_read, is_dropped = (torch.isclose(of_kept, one, atol=1e-4).all(-1) for one in (read, unconditional))
    assert (is_read ^ is_dropped).all()
    assert torch.isclose(given["prompt_embeds"][dropped], unconditional, atol=1e-4).all()
    counts = is_dropped.sum(1).bincount(minlength=4) / len(of_kept)
    for missing, share in enumerate((0.5 + 0.125, 0.125, 0.125, 0.125)):  # uniform: a part of 3 query tokens
        assert abs(counts[missing] - share) < 4 * (share * (1 - share) / len(of_kept)) ** 0.5


def test_captions_that_alone_tell_what_a_mask_shows_are_never_dropped() -> None:
    model, text = tiny_model("text"), ["red hair", "red hair"]
    task = task_of(model, conditioning_dropout=1.0, query_token_dropout=1.0)
    batch = {"text": text, "needs_text": torch.tensor([False, True])}
    cond, prompt_embeds = task.condition(model.denoiser, batch, torch.device("cpu"))
    read = model.conditioner.encode(text).tokens
    assert cond is not None and prompt_embeds is not None and model.denoiser is not None
    assert not cond[0].any() and torch.equal(cond[1], read[1])
    torch.testing.assert_close(prompt_embeds[1], model.denoiser.encode_prompt(read)[1])


@pytest.mark.parametrize("encoder", ["convolutions", "patch"])
def test_partial_patches_are_known_where_tokens_depend_on_their_patch_alone(
    tmp_path: Path, encoder: Literal["convolutions", "patch"]
) -> None:
    """On cached tokens. Elsewhere the tokens beside a mask depend on what is masked."""
    first_stage = FirstStage(tiny_first_stage(encoder=encoder)).eval()
    store = write_store(tmp_path, ("",) * 30)
    encode_store(store, first_stage, 2, tmp_path / "tokens.safetensors")
    tokens = TokenDataset(tmp_path / "tokens.safetensors", store, range(30))
    conditioner = conditioner_of("none", [])
    denoiser = Denoiser(denoiser_config(SHAPE, first_stage.config, conditioner, None))
    task = DenoiserTask(denoiser, conditioner, first_stage, tokens, ANY_RUN.replace(conditioning="none"))
    batch = default_collate([tokens[i] for i in range(len(tokens))])
    x0 = task.tokens(batch)
    assert torch.equal(task.encode(batch["image"]), x0), "tokens and images are of the same view"
    noise_level, left, color_hints = task.mask(batch, x0)
    kept, partial = noise_level == 0, (noise_level > 0) & (noise_level < 1)
    assert color_hints is None and torch.equal(left[kept], x0[kept])
    assert kept.float().mean() > 0.1 and (noise_level == 1).float().mean() > 0.3
    assert torch.equal((noise_level * 16).round(), noise_level * 16), "masks end on quarters of a patch"
    assert bool(partial.any()) == (encoder == "patch") == denoiser.config.partial_patches
    if encoder == "patch":
        assert 0 < float((left != x0)[partial].float().mean()) < 1, "some of what is left looks like what was there"


def test_a_share_of_masks_is_the_whole_image() -> None:
    """Half planes, strokes and boxes never cover it all, but boxes together may, and what is all but nothing does."""
    shapes = masks.random_masks(2000, 16)
    assert shapes.shape == (2000, 256) and shapes.any(1).all(), "none is empty"
    whole = int(shapes.all(1).sum())
    assert binomial_z(whole, 2000, masks.P_EVERYTHING) > -4
    assert binomial_z(whole, 2000, masks.P_EVERYTHING + 0.03) < 4


def test_masks_are_shapes_and_their_inverses() -> None:
    """The middle of an image is known as often as its corners are; every token is known and unknown at times.

    Of four masks three are as often inverted as not, and one leaves next to nothing: 5 in 8 are unknown.
    """
    drawn = masks.random_masks(4000, 16)
    parts = drawn[~drawn.all(1)].float().view(-1, 16, 16)
    assert 0.1 < parts.mean((1, 2)).quantile(0.2) < 0.5 < parts.mean((1, 2)).quantile(0.6) < 0.95
    shares = parts.mean(0)
    assert shares.min() > 0.5 and shares.max() < 0.75


def test_a_small_patch_is_all_that_is_kept_of_a_color() -> None:
    """Of a red and of a blue half, one is masked but for a small box, mostly in the patches that both share."""
    halves = torch.full((400, 3, 64, 64), -1.0)
    halves[:, 0, :, :30], halves[:, 2, :, 30:] = 1.0, 1.0
    drawn = masks.keep_color_patches(halves, 32)
    colors = torch.stack([drawn[:, :, :15].float().mean((1, 2)), drawn[:, :, 15:].float().mean((1, 2))], 1)
    kept = 1 - colors.amax(1)
    assert kept.max() <= 8 * 8 / (32 * 15) and 0.5 < (kept > 0).float().mean() < 0.9
    assert 100 < int((colors[:, 0] > colors[:, 1]).sum()) < 300, "either half"
    assert 0 < colors.amin(1).quantile(0.5) < 0.25 and colors.amin(1).max() > 0.3, "a margin, or one more shape"
    red = ~drawn[(colors[:, 0] > colors[:, 1]) & (colors[:, 0] < 1), :, :15]
    assert 0 < red[:, :, :12].flatten(1).any(1).float().mean() < 0.3, "patches of one color are seldom kept"


def test_an_image_of_one_color_is_masked_but_for_a_patch_at_times() -> None:
    kept = (~masks.keep_color_patches(torch.zeros(200, 3, 32, 32), 32)).flatten(1).sum(1)
    assert kept.max() <= 64 and abs(binomial_z(int((kept == 0).sum()), 200, masks.P_MIXED_COLORS)) < 4


def test_painted_masks_cut_patches() -> None:
    drawn = masks.painted_masks(torch.rand(100, 3, 64, 64) * 2 - 1, 16)
    assert (
        drawn.shape == (100, 16 * masks.PARTS_PER_PATCH, 16 * masks.PARTS_PER_PATCH) and drawn.flatten(1).any(1).all()
    )
    shares = F.avg_pool2d(drawn[:, None].float(), masks.PARTS_PER_PATCH)
    assert ((shares > 0) & (shares < 1)).flatten(1).any(1).float().mean() > 0.3


def test_brush_strokes_are_one_piece_wherever_they_are() -> None:
    """Grown from one of its tokens within itself, a stroke is reached whole; strokes bend, so that few are boxes."""
    boxes = 0
    for _ in range(200):
        stroke = masks.brush_stroke(16)
        reached = torch.zeros_like(stroke).view(-1).scatter(0, stroke.flatten().int().argmax()[None], True).view(16, 16)
        for _ in range(256):
            near = F.max_pool2d(reached[None, None].float(), 3, 1, 1)[0, 0] > 0
            reached, before = near & stroke, reached
            if torch.equal(reached, before):
                break
        assert stroke.any() and torch.equal(reached, stroke)
        boxes += int(stroke.any(1).sum() * stroke.any(0).sum() == stroke.sum())
    assert boxes < 40


def test_noise_levels_fall_and_have_their_shares() -> None:
    """Half of the steps begin at pure noise, two thirds end at x_0; within four deviations."""
    noise_t, noise_s = masks.random_noise_levels(4000)
    assert noise_t.shape == noise_s.shape == (4000, 1)
    assert (
        (noise_s >= 0).all()
        and (noise_s < noise_t).all()
        and (noise_t <= 1).all()
        and (noise_t >= masks.MIN_NOISE).all()
    )
    assert abs(binomial_z(int((noise_t == 1).sum()), 4000, masks.P_FULL_NOISE)) < 4
    assert abs(binomial_z(int((noise_s == 0).sum()), 4000, masks.P_TO_X0)) < 4
    both = int(((noise_t == 1) & (noise_s == 0)).sum())
    assert abs(binomial_z(both, 4000, masks.P_FULL_NOISE * masks.P_TO_X0)) < 4
    others = noise_t[noise_t < 1]
    assert abs(others.mean() - (1 + masks.MIN_NOISE) / 2) < 4 * (1 - masks.MIN_NOISE) / 12**0.5 / len(others) ** 0.5
    shares = (noise_s / noise_t)[noise_s > 0]
    assert abs(shares.mean() - 0.5) < 4 / 12**0.5 / len(shares) ** 0.5


@pytest.mark.slow
def test_a_model_is_trained_on_a_folder_of_classes(tmp_path: Path) -> None:
    """It generates the color of the given class, in one step and in four."""
    trained = train_denoiser(two_classes(DenoiserRun, tmp_path), tmp_path / "denoiser")
    assert (tmp_path / "denoiser" / "samples" / "0000080.png").is_file()
    model = ImageBART.from_pretrained(tmp_path / "denoiser")
    assert isinstance(model.conditioner, ClassConditioner) and model.conditioner.names == ("dark", "light")
    assert model.denoiser is not None
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.denoiser.state_dict()[name], tensor)
    for index, color in enumerate(COLORS.values()):
        wanted = model.first_stage.encode(torch.full((1, 3, 16, 16), color / 127.5 - 1))
        for scales in (1, 4):
            drawn = model.sample(8, cond=torch.full((8, 1), index), scales=scales, seed=1)
            assert (drawn == wanted).float().mean() > 0.8, (index, scales)


def test_a_denoiser_of_the_same_shape_initializes_another(tmp_path: Path) -> None:
    """Steps at a learning rate of 0 leave it as it was."""
    run = two_classes(DenoiserRun, tmp_path)
    run = run.replace(loop=run.loop.replace(steps=2))
    whole = train_denoiser(run, tmp_path / "whole").state_dict()
    standing = run.replace(init_from=str(tmp_path / "whole"), loop=run.loop.replace(lr=0.0))
    further = train_denoiser(standing, tmp_path / "further")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in further.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        train_denoiser(standing.replace(shape=run.shape.replace(depth=2)), tmp_path / "deeper")
    with pytest.raises(ValueError, match="color_hint_grid is 2; it needs a first stage with encoder 'patch'"):
        train_denoiser(run.replace(color_hint_grid=2), tmp_path / "refused")


def test_a_trained_text_encoder_is_used_and_stays_as_it_is(tmp_path: Path) -> None:
    ImageBART(FirstStage(SMALL)).save_pretrained(tmp_path / "first")
    train_captions(CaptionsRun(loop=LOOP, shape=AVATAR_SHAPE, text_length=60), tmp_path / "captions")
    encoder = load_text_encoder(tmp_path / "captions")[0].state_dict()
    run = ANY_RUN.replace(first_stage=str(tmp_path / "first"), shape=AVATAR_SHAPE, text_length=60)
    frozen = train_denoiser(run.replace(text_from=str(tmp_path / "captions")), tmp_path / "frozen", avatar_data)
    for name, tensor in encoder.items():
        assert torch.equal(tensor, frozen.text.state_dict()[name])
    free = train_denoiser(run.replace(init_from=str(tmp_path / "frozen")), tmp_path / "free", avatar_data)
    weight = "transformer.token_embedding.weight"
    assert not torch.equal(encoder[weight], free.text.state_dict()[weight])
