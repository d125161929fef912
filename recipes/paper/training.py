"""The experiment's tokens and arms: chains trained without masks, all with the same number of multiplications.

An arm's stages are trained each on its own and share its compute evenly: the first arm's steps set it, and a stage of
another arm takes as many steps as cost the same. Linear maps and attention are counted, tables of tokens multiply
nothing.
"""

import math
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import model_validator
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from imagebart.core.atomic_io import write_bytes
from imagebart.core.settings import Count, Settings, Share
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import Schedule, add_uniform_noise
from imagebart.models.transformer import Attention
from imagebart.models.vqgan import FirstStage
from imagebart.text.conditioners import Conditioner, NoConditioner
from imagebart.training.config import DenoiserRun, FirstStageRun, LoopConfig, StageRun, StageShape, TokensRun
from imagebart.training.data import AugmentedViews, stored_dataset
from imagebart.training.denoiser import denoiser_config, train_denoiser
from imagebart.training.loop import Batch
from imagebart.training.masks import random_masks
from imagebart.training.stage import Stages, StagesTask, stage_config, stage_loss, train_stages
from imagebart.training.token_task import TokenTaskInputs, token_tables, train_network
from imagebart.training.vqgan import load_first_stage, train_first_stage
from imagebart.weights.folder import CONFIG, load_networks
from recipes.avatars.dataset import avatar_item
from recipes.training import Series

FIRST_STAGE, TOKENS = "first-stage", "tokens.safetensors"  # in an experiment's folder
HELD_OUT = 470_047_000  # the first avatar to measure with; training has the first ones of all
MEASURED = 64  # held-out images that a first stage is measured with


class Arm(Settings):
    """A way to make images.

    stages: one for each t, trained each on its own. masked: the same, trained on masks. joint: one encoder-decoder for
    all t, which its first token says, as the original's joint configuration. denoiser: ours, on masks, for any T.
    """

    kind: Literal["stages", "masked", "joint", "denoiser"] = "stages"
    kept: tuple[Share, ...] = (0.0,)  # shares of an image's tokens that survive to x_1 ... x_T
    coarsest: StageShape = StageShape()  # of the decoder-only stage
    finer: StageShape = StageShape()  # of encoder-decoders

    @model_validator(mode="after")
    def _check(self) -> "Arm":
        if not self.kept or self.kept[-1] or any(a <= b for a, b in zip((1.0, *self.kept), self.kept, strict=False)):
            raise ValueError(f"kept is {list(self.kept)}, expected shares that fall from under 1 to 0")
        return self

    @property
    def schedule(self) -> Schedule:
        """The betas of t = 1 ... T."""
        return Schedule(tuple(1 - after / before for before, after in zip((1.0, *self.kept), self.kept, strict=False)))


class Experiment(Settings):
    """`recipes/paper/configs/NAME.json`."""

    first_stage: FirstStageRun | str  # of photographs, whose folder it names; of avatars, a trained one
    views: Count = 1  # of each photograph
    images: Count = 1  # avatars
    held_out: Count  # images to measure with, at most
    test_steps: Count = 200  # of the two-sample test
    loop: LoopConfig  # of the first arm
    arms: dict[str, Arm]

    @model_validator(mode="after")
    def _check(self) -> "Experiment":
        if self.loop.steps is None or not self.arms:
            raise ValueError("an experiment needs an arm, and loop the steps of the first one")
        return self


def prepare(experiment: Experiment, folder: Path) -> None:
    """Writes the first stage and the tokens of all images to an experiment's folder, unless they are there."""
    if (folder / TOKENS).exists():
        return
    if isinstance(experiment.first_stage, str):
        first_stage = load_first_stage(experiment.first_stage)
        ImageBART(first_stage).save_pretrained(folder / FIRST_STAGE)
        series = Series(partial(avatar_item, size=first_stage.config.resolution))
        train: Dataset[Any] = Subset(series, range(experiment.images))
        held_out: Dataset[Any] = Subset(series, range(HELD_OUT, HELD_OUT + experiment.held_out))
    else:
        run = experiment.first_stage
        store = stored_dataset(run.data, run.model.resolution, folder / "pictures").store
        train = AugmentedViews(store, store.index.numbers(held_out=False), experiment.views)
        others = store.index.numbers(held_out=True)
        held_out = AugmentedViews(store, others[: experiment.held_out], 1)
        first_stage = train_first_stage(run, folder / FIRST_STAGE, train, held_out=store.images(others[:MEASURED]))
    parts = {"train": encoded(first_stage, train), "held_out": encoded(first_stage, held_out)}
    write_bytes(folder / TOKENS, save(parts))


@torch.no_grad()
def encoded(first_stage: FirstStage, images: Dataset[Any]) -> Tensor:
    """The tokens of images, int32 [images, N]."""
    batches = tqdm(DataLoader(images, 32), desc="tokens", mininterval=10)
    return torch.cat([first_stage.encode(normalize(batch["image"])).int() for batch in batches])


def train_all(experiment: Experiment, folder: Path) -> None:
    """Trains (or resumes) all arms in an experiment's folder, one after the other."""
    prepare(experiment, folder)
    tokens = load_file(folder / TOKENS)["train"].long()
    dataset: Any = [{"tokens": row, "text": ""} for row in tokens]

    def data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
        return dataset, NoConditioner()

    inputs = TokenTaskInputs(load_first_stage(folder / FIRST_STAGE), dataset, NoConditioner(), None, None)
    compute = 0
    for name, arm in experiment.arms.items():
        scales = len(arm.kept)
        batch = experiment.loop.batch_size // (scales if arm.kind == "joint" else 1)  # it sees each image at all t
        for t in range(1, scales + 1) if arm.kind in ("stages", "masked") else (None,):
            shape = arm.coarsest if t == scales else arm.finer
            of_tokens: dict[str, Any] = {"data": "", "first_stage": str(folder / FIRST_STAGE), "shape": shape}
            of_tokens["conditioning"] = "none"
            run = StageRun(**of_tokens, loop=experiment.loop, betas=arm.schedule.betas, t=t)
            if arm.kind == "denoiser":
                network: Any = Denoiser(denoiser_config(shape, inputs.first_stage.config, inputs.conditioner, None))
            else:
                network = Stage(stage_config(run, t or 1, arm.schedule, inputs), scales)
            step = batch * cost(network) * scales
            compute = compute or experiment.loop.steps * step  # type: ignore[operator]  # checked
            loop = experiment.loop.replace(batch_size=batch, steps=round(compute / step))
            part = folder / name / (f"stage{t}" if t else arm.kind)
            if (part / CONFIG).exists():
                continue
            print(f"{part}: {loop.steps:,} steps", flush=True)
            if arm.kind == "denoiser":
                train_denoiser(DenoiserRun(**of_tokens, loop=loop), part, data)
            else:
                (train_stages if arm.kind == "stages" else train_own)(run.replace(loop=loop), part, data)


def cost(network: Stage | Denoiser) -> int:
    """Multiplications for a token of an image, forward."""
    count = 0
    for module in network.modules():
        if isinstance(module, nn.Linear):
            count += module.weight.numel()
        if isinstance(module, Attention):
            count += 2 * network.config.tokens * module.out.in_features
    return count


class MaskedStagesTask(StagesTask):
    """Stages that see what a random mask keeps as it is, as when they complete images."""

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The mean of the stages' losses, of masked tokens."""
        x0, schedule, losses = self.tokens(batch), Schedule(self.run.betas), []
        masked = random_masks(len(x0), math.isqrt(x0.shape[1])).to(x0.device)
        for index, t in enumerate(self.model.times):
            x_s = add_uniform_noise(x0, (1 - schedule.alphacum(t - 1)) * masked, self.vocab_size)
            x_t = add_uniform_noise(x_s, schedule.betas[t - 1] * masked, self.vocab_size)
            logits, *tokens = (part[masked][None] for part in (model(index, x_s, x_t, None), x0, x_s, x_t))
            losses.append(stage_loss(logits, tokens[0], tokens[1], tokens[2], t, schedule))
        return {"loss": torch.stack(losses).mean()}


def train_own(run: StageRun, folder: Path, data: Any) -> None:
    """Trains a stage on masks or, where a run names none, one encoder-decoder for all t; writes them as stages."""
    inputs, schedule = TokenTaskInputs.of(run, folder, data), Schedule(run.betas)
    stages = [first := Stage(stage_config(run, run.t or 1, schedule, inputs), schedule.stages)]
    for t, beta in enumerate(run.betas[1:], 2) if run.t is None else ():
        stages.append(Stage(first.config.replace(t=t, beta=beta), schedule.stages))
        stages[-1].encoder, stages[-1].decoder = first.encoder, first.decoder
    kind = StagesTask if run.t is None else MaskedStagesTask
    task = kind(Stages(stages), inputs.conditioner, inputs.first_stage, inputs.dataset, run)
    trained = train_network(task, token_tables(first), folder)
    apart = [deepcopy(stage) for stage in trained.stages]  # a file holds no tensor twice
    ImageBART(inputs.first_stage, apart, schedule=schedule).save_pretrained(folder)


def load_arm(name: str, arm: Arm, folder: Path) -> ImageBART | None:
    """A trained arm as a model; None of one that is not trained yet."""
    names = [f"stage{t + 1}" for t in range(len(arm.kept))] if arm.kind in ("stages", "masked") else [arm.kind]
    if not all((folder / name / part / CONFIG).exists() for part in names):
        return None
    parts = [load_networks(folder / name / part, cls=ImageBART) for part in names]
    network = parts[0].denoiser or [stage for part in parts for stage in part.stages]
    return ImageBART(parts[0].first_stage, network, schedule=arm.schedule)
