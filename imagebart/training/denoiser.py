"""Training the denoiser: x_0 from x_t at any noise levels, around any kept part (see `imagebart.models.denoiser`)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import normalize, on_gray
from imagebart.imaging.masks import preset_array
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, DenoiserConfig, check_color_hint_grid
from imagebart.models.diffusion import add_uniform_noise
from imagebart.models.transformer import TextEncoderConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.sampling.inpainting import encode_color_hints, fill_nearest, mask_coverage
from imagebart.text.conditioners import Conditioner
from imagebart.training.config import DenoiserRun, StageShape
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Metrics
from imagebart.training.masks import painted_masks, random_masks, random_noise_levels
from imagebart.training.token_task import Data, TokensTask, TokenTaskInputs, needs_text, prefix_size, train_network
from imagebart.weights.folder import load_networks

HELD_OUT_SHOWN, HELD_OUT_MEASURED = 6, 64  # images in a grid, and for a metric
GRID_SETTINGS = SamplingSettings(top_p=0.95, scales=2)


class DenoiserTask(TokensTask[DenoiserRun]):
    """Images and captions to tokens; a masked part of them to noise; the network predicts what they were.

    A data set may say what is masked ("mask", see `painted_masks`), and whether only the caption says what the mask
    shows, in which case it is never dropped ("needs_text").
    """

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0 = self.tokens(batch)
        noise_level, kept, color_hints = self.mask(batch, x0)
        start, end = (level.to(x0.device) for level in random_noise_levels(len(x0), self.run.full_noise))
        unknown = noise_level > end
        observed = (noise_level <= start) & (noise_level < 1)
        beta = 1 - (1 - start) / (1 - end)  # share of tokens that becomes noise from x_s to x_t
        x_s = torch.where(unknown, add_uniform_noise(x0, end * unknown, self.vocab_size), kept)
        x_t = torch.where(observed, kept, add_uniform_noise(x_s, beta * unknown, self.vocab_size))
        cond, prompt_embeds = self.condition(accelerator.unwrap_model(model), batch, x0.device)
        given = {
            "x_t": x_t,
            "noise_t": torch.minimum(noise_level, start),
            "noise_s": torch.minimum(noise_level, end),
            "cond": cond,
            "prompt_embeds": prompt_embeds,
            "hint_embeds": accelerator.unwrap_model(model).embed_hints(color_hints),
        }
        corrupted = self.corrupted(model, x_s, given, unknown, to_x0=end == 0)
        target, codes = x0[unknown], None
        if self.run.sampled_codes:
            codes = torch.cat([target, x_t[unknown]]).unique()
            target = torch.searchsorted(codes, target)
        logits, drafts = model(corrupted, unknown, codes=codes, **given)
        loss, draft_loss = (F.cross_entropy(part.float(), target) for part in (logits, drafts))
        right = (logits.argmax(-1) == target).float().mean()
        total = loss + self.run.draft_weight * draft_loss
        return {"loss": total, "tokens": loss, "drafts": draft_loss, "accuracy": right}

    def mask(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of a mask for each image, the batch's own or a random one: its coverage of each patch, float [B, N]; the
        tokens of the kept rest of each patch, int64 [B, N]; for most images, color hints of that, bool [B, N, K], if
        the denoiser takes any. Masks are of whole patches, unless tokens depend on their own patch alone.
        """
        if "image" not in batch or self.first_stage.config.encoder != "patch":  # tokens depend on what is masked
            masks = batch["mask"].flatten(1) if "mask" in batch else random_masks(len(x0), math.isqrt(x0.shape[1]))
            return masks.float().to(x0.device), x0, None
        images = batch["image"]
        pixels = normalize(images)
        parts = batch["mask"].cpu() if "mask" in batch else painted_masks(pixels.cpu(), math.isqrt(x0.shape[1]))
        masks = F.interpolate(parts[:, None].float(), images.shape[2:])[:, 0].bool()
        noise_level = mask_coverage(parts, x0.shape[1]).to(x0.device)
        kept, cut = x0.clone(), ((noise_level > 0) & (noise_level < 1)).any(1)
        if cut.any():
            kept[cut] = self.encode(fill_nearest(images[cut].cpu(), masks[cut.cpu()]).to(images.device))
        color_hints = None
        if self.run.color_hint_grid:
            parts_per_side = self.run.color_hint_grid
            color_hints = encode_color_hints(self.first_stage, pixels, masks.to(images.device), parts_per_side)
            shown = torch.rand(len(color_hints), 1, 1, device=color_hints.device) >= self.run.color_hint_dropout
            color_hints = color_hints & shown
        return noise_level, torch.where(noise_level > 0, kept, x0), color_hints

    def corrupted(
        self, model: nn.Module, x_s: Tensor, given: Mapping[str, Tensor | None], unknown: Tensor, to_x0: Tensor
    ) -> Tensor:
        """The decoder's input tokens, int64 [B, N]: x_s; in some steps to x_0 (to_x0 [B, 1]), a share is corrupted.

        The tokens before one mostly determine it, so that a caption's word matters once in 256 tokens; where they are
        corrupted, it matters at each. They become noise, or what the network samples after the true ones before them:
        mistakes as it makes them itself.
        """
        some = (torch.rand(to_x0.shape, device=to_x0.device) < self.run.decoder_corruption) & to_x0
        share = torch.rand(to_x0.shape, device=to_x0.device) * some * unknown
        noisy = add_uniform_noise(x_s, share, self.vocab_size)
        if not self.run.scheduled_sampling:
            return noisy
        with torch.no_grad():
            logits, _ = model(x_s, unknown, **given)
        sampled = x_s.masked_scatter(unknown, torch.multinomial(logits.float().softmax(-1), 1))
        own = torch.where(torch.rand(x_s.shape, device=x_s.device) < share, sampled, x_s)
        return torch.where(torch.rand(len(x_s), 1, device=x_s.device) < self.run.scheduled_sampling, own, noisy)

    def condition(self, model: Any, batch: Batch, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Conditioning tokens and their embeddings; whole captions and single query tokens are dropped for a share.

        The first for guidance; the second because a pair of values that never occurs together is learned one by one.
        """
        cond = self.cond_tokens(batch, device)
        if cond is None or model.config.text is None:
            return cond, None
        prompt_embeds = model.encode_prompt(cond)
        unconditional = model.encode_prompt(self.conditioner.unconditional(1).to(device))
        some = (torch.rand(len(cond), 1) < self.run.query_token_dropout) & ~needs_text(batch)
        share = torch.rand(len(cond), 1) * some
        dropped = (torch.rand(prompt_embeds.shape[:2]) < share).to(device)
        return cond, torch.where(dropped[..., None], unconditional, prompt_embeds)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Held-out images; with the lower half and the middle regenerated; images for their captions."""
        assert isinstance(model, Denoiser)
        whole = ImageBART(self.first_stage.to(model.device), model, self.conditioner)
        x0, texts = self.examples(HELD_OUT_SHOWN, model.device)
        rows = [x0]
        for name in ("lower half", "center", "everything"):
            keep = ~torch.from_numpy(preset_array(name, math.isqrt(x0.shape[1]))).flatten()
            prompts = self.condition_on([""] * len(texts) if keep.any() else texts)
            *_, last = whole.stream(len(x0), prompts, known=x0, keep=keep, settings=GRID_SETTINGS, seed=0)
            rows.append(last.tokens.to(model.device))
        decoded = self.first_stage.decode(torch.cat(rows)).float()
        return grid(on_gray(decoded) if self.first_stage.config.draws_layers else decoded, columns=len(x0))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Metrics:
        """Mean negative log-likelihood a token of held-out images, in nats, with half known and with nothing known."""
        assert isinstance(model, Denoiser)
        if self.held_out is None:
            return {}
        x0, texts = self.examples(HELD_OUT_MEASURED, model.device)
        side, losses = math.isqrt(x0.shape[1]), dict[str, float]()
        for name, area in (("half", "lower half"), ("whole", "everything")):
            masked = torch.from_numpy(preset_array(area, side)).flatten().to(model.device)
            parts = []
            for at in range(0, len(x0), 16):
                part, cond = x0[at : at + 16], self.condition_on(texts[at : at + 16])
                noise_t = masked.float().expand(len(part), -1)
                x_t = add_uniform_noise(part, noise_t, self.vocab_size, torch.Generator(part.device).manual_seed(at))
                cond = None if cond is None else cond.to(model.device)
                logits = model.logits(part, x_t, noise_t, torch.zeros_like(noise_t), cond=cond)
                parts.append(F.cross_entropy(logits[:, masked].mT.float(), part[:, masked], reduction="none"))
            losses[name] = float(torch.cat(parts).mean())
        return {"loss": (losses["half"] + losses["whole"]) / 2, **losses}


def denoiser_config(
    shape: StageShape, first_stage: FirstStageConfig, conditioner: Conditioner, text: TextEncoderConfig | None
) -> DenoiserConfig:
    """Shapes; text: of what reads prompts, None for other conditioning tokens."""
    prefix, others = prefix_size(conditioner, text)
    codes, tokens = first_stage.vocab_size, first_stage.tokens
    vocabulary, positions = codes + others + 1, 1 + prefix + tokens
    return DenoiserConfig(
        vocab_size=codes,
        tokens=tokens,
        decoder=shape.decoder(vocabulary, positions, codes, cross=True),
        encoder=shape.encoder(vocabulary, positions),
        cond_length=conditioner.length,
        text=text,
        partial_patches=first_stage.encoder == "patch",
    )


class _FirstRows(nn.Module):
    """The weight of a head: the rows of an embedding's codes, which come first."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, weight: Tensor) -> Tensor:
        return self.embedding.weight[: len(weight)]


def tie_embeddings(denoiser: Denoiser) -> None:
    """From here on the embeddings of codes and the heads are one table, until they are merged: each drawing's patches
    are codes of their own, which a row that is both is learned for in a quarter of the steps."""
    embedding = denoiser.decoder.token_embedding
    denoiser.encoder.token_embedding.weight = embedding.weight
    for head in (denoiser.decoder.head, denoiser.draft_head):
        parametrize.register_parametrization(head, "weight", _FirstRows(embedding))
        head.get_parameter("parametrizations.weight.original").requires_grad_(False)


def train_denoiser(run: DenoiserRun, folder: Path, data: Data | None = None) -> Denoiser:
    """Trains (or resumes) a denoiser in a run's folder and writes a model there. data: None for a folder of images."""
    inputs = TokenTaskInputs.of(run, folder, data)
    first_stage = inputs.first_stage
    check_color_hint_grid(run.color_hint_grid, first_stage.config)
    config = denoiser_config(run.shape, first_stage.config, inputs.conditioner, inputs.text)
    asked = run.model_dump(include={"color_hint_grid", "tied_embeddings"})
    denoiser = Denoiser(config.replace(**asked))
    if run.init_from is not None:
        initial = load_networks(Path(run.init_from), cls=ImageBART).denoiser
        if initial is None:
            raise InputError(f"{run.init_from} has no denoiser to start from.")
        if inputs.text_encoder is not None:
            initial.set_text_encoder(inputs.text_encoder)  # it may know other words
        denoiser.load_state_dict(initial.state_dict())
    inputs.freeze_text_encoder(denoiser)
    embeddings = (denoiser.encoder.token_embedding, denoiser.decoder.token_embedding)
    if run.tied_embeddings:
        tie_embeddings(denoiser)
    task = DenoiserTask(denoiser, inputs.conditioner, first_stage, inputs.dataset, run)
    trained: Denoiser = train_network(task, () if run.tied_embeddings else embeddings, folder)
    ImageBART(first_stage, trained, inputs.conditioner).save_pretrained(folder)
    return trained
