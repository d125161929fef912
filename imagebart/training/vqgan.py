"""Training a first stage: reconstruct images through a codebook that is kept by moving averages.

The codebook follows van den Oord et al., Neural Discrete Representation Learning (2017), appendix A.1. A discriminator
(Esser et al., Taming Transformers, 2021) joins once the loss of pixels and edges has settled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast
from PIL import Image
from torch import Tensor, autograd, nn
from torch.utils.data import Dataset

from imagebart.core.errors import InputError
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage, Quantizer, psnr
from imagebart.training.config import AdversarialLoss, FirstStageLoss, FirstStageRun
from imagebart.training.data import grid, stored_dataset
from imagebart.training.loop import Batch, Metrics, Task, train
from imagebart.weights.folder import load_networks

SHOWN = 12  # images in a grid
GROUPS = 8  # of channels of a discriminator that are normalized together


@dataclass
class FirstStageTask(Task):
    """Reconstruction with L1 + L2 + edges, a commitment of latents to their codes, and maybe a discriminator."""

    model: FirstStage
    dataset: Dataset[Any]
    weight: Tensor  # of each pixel's error, [H, W]
    config: FirstStageLoss
    decoder_only: bool = False  # encoder and codebook, and so the tokens of images, stay
    held_out: Tensor | None = None  # images [B, 3, H, W] to measure and show; else the data set's first ones are shown

    def __post_init__(self) -> None:
        model, config = self.model, self.config
        if self.decoder_only:
            model.encoder.requires_grad_(False)
            model.quant_conv.requires_grad_(False)
        self.weight = self.weight / self.weight.mean()
        model.quantize.embedding.weight.requires_grad_(False)  # moved by averages, not by gradients
        self.codebook_ema = CodebookEMA(model.quantize, config.codebook_decay, config.dead_code_threshold)
        self.discriminator = None if config.adversarial is None else DiscriminatorTrainer(config.adversarial)
        self.perceptual = perceptual_loss() if config.perceptual else None
        self.assigned: tuple[Tensor, Tensor]  # latents and tokens of the step

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        images = normalize(batch["image"]).to(memory_format=torch.channels_last)
        first: FirstStage = accelerator.unwrap_model(model)
        output, z, tokens = model(images)
        output = output.float()
        weight = self.weight.to(images.device)[None, None]
        error = (output - images) * weight.sqrt()
        l1, l2 = (error.abs() * weight.sqrt()).mean(), error.square().mean()
        edges = gradient_loss(output, images, weight)
        projected = first.quantize.project(z.float())
        commitment = (projected - first.quantize.codes()[tokens].detach()).square().sum(-1).mean()
        self.assigned = (projected.detach().flatten(0, -2), tokens.flatten())
        scalars = {"l1": l1, "edges": edges, "commitment": commitment}
        reconstruction = l1 + l2 + self.config.gradient * edges
        if self.perceptual is not None:
            scalars["perceptual"] = self.perceptual.to(output.device)(output, images).mean()
            reconstruction = reconstruction + self.config.perceptual * scalars["perceptual"]
        total = reconstruction + self.config.commitment * commitment
        if self.discriminator is not None:
            scalars |= self.discriminator.loss(images, output, reconstruction, self.share)
            total = total + scalars["adversarial"]
        scalars["psnr"] = psnr(output.detach()[None], images[None])[0]  # of the whole batch
        used = tokens.unique().numel() / first.config.vocab_size
        return {"loss": total, **scalars, "used": torch.tensor(used)}

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        if self.discriminator is not None:
            self.discriminator.step(accelerator)
        if not self.decoder_only:
            self.codebook_ema.to(self.assigned[0].device)
            self.codebook_ema.update(model.quantize, *self.assigned, accelerator)  # type: ignore[arg-type]

    def state(self) -> dict[str, Any]:
        trainer = self.discriminator
        more = {} if trainer is None else {"discriminator": trainer.model, "its optimizer": trainer.optimizer}
        return {"codebook": self.codebook_ema, **more}

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Images above their reconstructions."""
        assert isinstance(model, FirstStage)
        images = self.held_out
        if images is None:
            shown = range(len(self.dataset))[:SHOWN]  # type: ignore[arg-type]
            images = normalize(torch.stack([self.dataset[i]["image"] for i in shown]))
        images = images[:SHOWN].to(next(model.parameters()).device)
        return grid(torch.cat([images, model.decode(model.encode(images))]), columns=len(images))

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Metrics:
        """Of held-out images: the root mean square error in levels of 255, PSNR in dB, the share of codes in use."""
        assert isinstance(model, FirstStage)
        if self.held_out is None:
            return {}
        device, decoded, used = next(model.parameters()).device, [], set[int]()
        for part in self.held_out.split(16):
            tokens = model.encode(part.to(device))
            decoded.append(model.decode(tokens).clamp(-1, 1).float().cpu())
            used |= set(tokens.unique().tolist())
        again = torch.cat(decoded)
        error = 127.5 * float((again - self.held_out).square().mean().sqrt())
        codes = len(used) / model.config.vocab_size
        return {"error": error, "psnr": float(psnr(again, self.held_out).mean()), "codes": codes}


def perceptual_loss() -> nn.Module:
    """LPIPS by VGG-16 (Zhang et al. 2018), as the paper's first stages were trained; downloads its weights once."""
    try:
        import lpips
    except ImportError as error:
        raise InputError("A perceptual loss needs the package lpips: pip install 'imagebart[lpips]'.") from error
    return lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False)


def gradient_loss(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted difference of horizontal and vertical differences on three scales. x, y: [B, 3, H, W]."""
    error, loss = (x - y), x.new_zeros(())
    for _ in range(3):
        dx, dy = error.diff(dim=-1).abs(), error.diff(dim=-2).abs()
        loss = loss + (dx * weight[..., :, 1:]).mean() + (dy * weight[..., 1:, :]).mean()
        error, weight = F.avg_pool2d(error, 2), F.avg_pool2d(weight, 2)
    return loss / 3


class CodebookEMA(nn.Module):
    """Moving averages of the latents that each code received; the codes are their means."""

    count: Tensor
    total: Tensor

    def __init__(self, quantizer: Quantizer, decay: float, dead_code_threshold: float) -> None:
        super().__init__()
        self.decay, self.dead_code_threshold = decay, dead_code_threshold
        # Nothing is counted yet: codes that the first batch does not use are replaced from it.
        self.register_buffer("count", torch.zeros(quantizer.embedding.num_embeddings))
        self.register_buffer("total", torch.zeros_like(quantizer.embedding.weight))

    def init_from(self, quantizer: Quantizer) -> None:
        """Counts every code of a trained quantizer once, so that the first batch does not replace it."""
        self.count.fill_(1.0)
        self.total.copy_(quantizer.project(quantizer.embedding.weight.detach()))

    @torch.no_grad()
    def update(self, quantizer: Quantizer, z: Tensor, tokens: Tensor, accelerator: Accelerator) -> None:
        """Latents [M, d] and their tokens [M] of one step, on every process."""
        one_hot = F.one_hot(tokens, len(self.count)).to(z.dtype)
        count = accelerator.reduce(one_hot.sum(0), "sum")
        total = accelerator.reduce(one_hot.T @ z, "sum")
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        least = self.dead_code_threshold * self.count.mean()
        dead = self.count < least
        if dead.any():
            # Far from their codes, as in k-means++: most patches of a flat image look the same.
            distance = (z - quantizer.codes()[tokens]).square().sum(-1) + 1e-9
            chosen = z[distance.multinomial(int(dead.sum()), replacement=True)]
            grace = 2 * least  # a code that stays unused is soon replaced again
            self.total[dead] = grace * broadcast(chosen)  # the first process's, on all
            self.count[dead] = grace
        quantizer.embedding.weight.copy_(quantizer.project(self.total / self.count.clamp_min(1e-9)[:, None]))


class Discriminator(nn.Module):
    """Images [B, 3, H, W] -> features of each layer, finest first; the last are logits [B, 1, h, w], over 0 for real.

    A logit sees 70 x 70 pixels (Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017,
    section 3.2.2). Group norms, in place of batch norms, allow small batches.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2))]
        for stride in (2, 2, 1):
            block = [nn.Conv2d(channels, 2 * channels, 4, stride, 1), nn.GroupNorm(GROUPS, 2 * channels)]
            layers.append(nn.Sequential(*block, nn.LeakyReLU(0.2)))
            channels *= 2
        layers.append(nn.Sequential(nn.Conv2d(channels, 1, 4, 1, 1)))
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[1:]


def feature_matching_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's features before its logits; all layers count the same.

    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (2018), eq. 4.
    """
    pairs = zip(real[:-1], fake[:-1], strict=True)
    return torch.stack([F.l1_loss(y.float(), x.detach().float()) for x, y in pairs]).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, output: Tensor) -> Tensor:
    """The weight that gives both losses gradients of the same size (Taming Transformers, eq. 7).

    The gradients are those of the output's pixels, which every decoder has, not of the last layer's weights.
    """
    ours, theirs = (autograd.grad(loss, output, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial))
    return (ours / (theirs + 1e-6)).clamp(max=1e4).detach()


class DiscriminatorTrainer:
    """A discriminator of the same part of images and of their reconstructions, once a share of the run is done."""

    def __init__(self, config: AdversarialLoss) -> None:
        self.config = config
        self.model = Discriminator(config.channels).to(PartialState().device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.lr, betas=(0.5, 0.9))
        self.pending: tuple[Tensor, Tensor] | None = None  # real and fake part of the step

    def loss(self, images: Tensor, output: Tensor, reconstruction: Tensor, share: float) -> dict[str, Tensor]:
        """Images, reconstructions [B, 3, H, W], loss so far -> scalars; `adversarial` is to be added."""
        if share < self.config.start:
            return dict.fromkeys(("adversarial", "generator_loss", "feature_matching"), output.new_zeros(()))
        self.model.requires_grad_(False)  # its own step comes after
        side = min(self.config.crop, *images.shape[2:])
        top, left = (int(torch.randint(size - side + 1, ())) for size in images.shape[2:])
        window = (..., slice(top, top + side), slice(left, left + side))
        real, fake = images[window], output[window]
        with torch.no_grad():
            real_features = self.model(real)
        fake_features = self.model(fake)
        generator = -fake_features[-1].float().mean()
        matching = feature_matching_loss(real_features, fake_features)
        weight = self.config.weight * adaptive_weight(reconstruction, generator, output)
        self.pending = (real, fake.detach())
        added = weight * generator + self.config.feature_matching_weight * matching
        return {"adversarial": added, "generator_loss": generator.detach(), "feature_matching": matching.detach()}

    def step(self, accelerator: Accelerator) -> None:
        """The discriminator's own step, on what the last loss was of."""
        if self.pending is None:
            return
        self.model.requires_grad_(True)
        with accelerator.autocast():
            real, fake = (self.model(part)[-1].float() for part in self.pending)
            loss = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        loss.backward()
        for parameter in self.model.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.pending = None


def train_first_stage(
    run: FirstStageRun,
    folder: Path,
    dataset: Dataset[Any] | None = None,
    face: Tensor | None = None,
    held_out: Tensor | None = None,
) -> FirstStage:
    """Trains (or resumes) a first stage in a run's folder; writes it there and returns it, with averaged weights.

    dataset: in place of `run.data`. face: where errors weigh `run.loss.face`, 0 to 1, [H, W].
    """
    torch.manual_seed(run.loop.seed)
    model = FirstStage(run.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.init_from is not None:
        init_from(model, load_first_stage(run.init_from), run.decoder_only)
    size = run.model.resolution
    weight = torch.ones(size, size) if face is None else 1 + (run.loss.face - 1) * face
    dataset = stored_dataset(run.data, size, folder / "pictures") if dataset is None else dataset
    task = FirstStageTask(model, dataset, weight, run.loss, run.decoder_only, held_out)
    if run.init_from is not None:
        task.codebook_ema.init_from(model.quantize)
    trained = train(task, run.loop, folder)
    assert isinstance(trained, FirstStage)
    processes = PartialState()
    if processes.is_main_process:
        ImageBART(trained).save_pretrained(folder)
    processes.wait_for_everyone()
    return trained


def init_from(model: FirstStage, other: FirstStage, decoder_only: bool) -> None:
    """Copies the weights of another first stage, of which decoder_only lets the decoder differ, else InputError."""
    weights, new = other.state_dict(), model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in new and new[name].shape == value.shape}
    for name in model.load_state_dict(fitting, strict=False).missing_keys:
        if not decoder_only or name.startswith(("encoder.", "quant_conv.", "quantize.")):
            raise InputError(f"The first stage in init_from has no {name} of shape {list(new[name].shape)}.")


def load_first_stage(folder: str | Path) -> FirstStage:
    """The first stage in a run's or a model's folder, frozen."""
    first_stage = load_networks(Path(folder), cls=ImageBART).first_stage
    if first_stage is None:
        raise InputError(f"{folder} has no first stage.")
    return first_stage
