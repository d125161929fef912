"""Training on tokens: inputs, targets and losses of a denoiser and of stages, and the codebook's tables."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from oracles import binomial_z
from tiny_models import tiny_first_stage, tiny_model, tiny_staged_model
from tiny_runs import SHAPE, draw_folder
from torch import Tensor, nn
from torch.utils.data import default_collate

from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.diffusion import Schedule, add_uniform_noise, posterior
from imagebart.models.vqgan import FirstStage
from imagebart.sampling.inpainting import encode_color_hints
from imagebart.training import masks
from imagebart.training.config import DenoiserRun, LoopConfig, StageRun
from imagebart.training.data import ImageStore, stored_dataset
from imagebart.training.denoiser import DenoiserTask, denoiser_config
from imagebart.training.loop import Batch
from imagebart.training.stage import Stages, StagesTask, stage_loss
from imagebart.training.token_task import (
    TokenDataset,
    add_codebook_embedding,
    conditioner_of,
    encode_store,
    merge_codebook_embedding,
    token_tables,
)

LOOP = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, mixed_precision="no")
ANY_RUN = DenoiserRun(data="avatars", first_stage="nowhere", loop=LOOP)


class Recorder(nn.Module):
    """A denoiser that records its inputs and returns random logits."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.config, self.encode_prompt = denoiser.config, denoiser.encode_prompt
        self.inputs: dict[str, Any] = {}
        self.outputs: list[Tensor] = []

    def embed_hints(self, color_hints: Tensor | None) -> Tensor | None:
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
    given, _, _ = inputs_of(900, network=AlwaysSeven, decoder_corruption=0.4, scheduled_sampling=0.5)
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
def test_partial_patches_are_known_where_tokens_are_of_one_patch(tmp_path: Path, encoder: Any) -> None:
    """On cached tokens. Elsewhere the tokens beside a mask depend on what is masked."""
    first_stage = FirstStage(tiny_first_stage(encoder=encoder)).eval()
    stored_dataset(str(draw_folder(tmp_path / "data", "none", 30)), 32, tmp_path / "store")
    store = ImageStore(tmp_path / "store")
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


def test_the_soft_loss_is_the_mean_of_hard_losses() -> None:
    """Over many samples of x_{t-1} from the posterior, hard losses average to the soft one."""
    schedule, vocab, t = Schedule((0.4, 0.5, 1.0)), 5, 2
    x0 = torch.randint(vocab, (1, 6))
    x_s = add_uniform_noise(x0, 1 - schedule.alphacum(t - 1), vocab)
    x_t = add_uniform_noise(x_s, schedule.betas[t - 1], vocab)
    logits = torch.randn(1, 6, vocab)
    soft = stage_loss(logits, x0, x_s, x_t, t, schedule)
    draws = torch.distributions.Categorical(posterior(x_t, x0, t, schedule, vocab)).sample((20_000,))[:, 0]
    hard = F.cross_entropy(logits.expand(len(draws), -1, -1).flatten(0, 1), draws.flatten())
    assert abs(soft - hard) < 0.02  # four standard errors


def test_the_loss_is_the_mean_of_the_stages_and_moves_each_by_its_own() -> None:
    model = tiny_staged_model("none")
    run = StageRun(data="", first_stage="", loop=LOOP, betas=(0.5, 1.0), t=None, conditioning_dropout=0.0)
    task = StagesTask(Stages([*model.stages]).requires_grad_(True), model.conditioner, model.first_stage, [], run)
    batch = {"image": torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), "text": [""] * 4}
    losses = task.loss(task.model, batch, Accelerator(cpu=True))
    torch.testing.assert_close(losses["loss"], (losses["stage1"] + losses["stage2"]) / 2)
    losses["stage2"].backward(retain_graph=True)
    fine, coarse = ([p.grad for p in stage.parameters()] for stage in task.model.stages)
    assert all(grad is None for grad in fine)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in coarse)


def denoiser_with_codes() -> tuple[Denoiser, torch.Tensor]:
    """Codes 0 and 1 have the same vector, 2 the opposite one, the others none."""
    denoiser, codes = tiny_model("none").denoiser, torch.zeros(24, 2)
    codes[:2, 0], codes[2, 0] = 1.0, -1.0
    return denoiser.requires_grad_(True), codes


def test_trained_maps_of_the_codebook_are_merged_into_tables() -> None:
    denoiser, codes = denoiser_with_codes()
    x = torch.randint(24, (2, 64))

    def logits() -> torch.Tensor:
        return denoiser.logits(x, x, torch.full(x.shape, 0.5), torch.zeros(x.shape))

    names, before = set(denoiser.state_dict()), logits()
    add_codebook_embedding(token_tables(denoiser), codes)
    assert torch.equal(logits(), before), "the map is zero at first"
    logits().square().mean().backward()
    torch.optim.SGD(denoiser.parameters(), 0.5).step()
    trained = logits()
    merge_codebook_embedding(denoiser)
    assert set(denoiser.state_dict()) == names and not torch.allclose(trained, before)
    torch.testing.assert_close(logits(), trained)


def test_an_unused_code_learns_from_similar_ones_in_embeddings_and_heads() -> None:
    """Only code 0 is used, and only it is ever right; the start token is no code."""
    denoiser, codes = denoiser_with_codes()
    embedding, head, state = denoiser.encoder.token_embedding, denoiser.decoder.head, torch.randn(1, 32)
    table, before = embedding.weight.detach().clone(), head(state).detach()
    add_codebook_embedding(token_tables(denoiser), codes)
    (embedding(torch.zeros(1, dtype=torch.long)).sum() - head(state).log_softmax(-1)[0, 0]).backward()
    torch.optim.SGD(denoiser.parameters(), 0.1).step()
    merge_codebook_embedding(denoiser)
    moved = embedding.weight - table
    assert (moved[0] < moved[1]).all() and (moved[1] < -0.01).all()
    torch.testing.assert_close(moved[2], -moved[1], atol=0.02, rtol=0.2)
    assert not moved[24].any()
    likelier = head(state)[0] - before[0]
    assert likelier[0] > likelier[1] > likelier[3:].max() > likelier[2]
