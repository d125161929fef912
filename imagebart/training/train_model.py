"""From a folder of images to a model: inspect, train the first stage, tokenize, train the denoiser, write the model.

A run that was stopped goes on where it was. With more hours, the denoiser alone is trained further: tokens stay.
"""

import re
import statistics
from collections import Counter
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from PIL import Image, ImageDraw

from imagebart.core.atomic_io import write_text
from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import MASK_SUFFIX, preset
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.transformer import with_vocabulary
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.text.conditioners import Conditioner, TextConditioner
from imagebart.training.config import (
    AdversarialLoss,
    DenoiserRun,
    FirstStageLoss,
    FirstStageRun,
    LoopConfig,
    ModelRun,
    Resolution,
    StageShape,
    load,
)
from imagebart.training.data import MAX_VIEWS, AugmentedViews, ImageSource, ImageStore, inspect_dataset, open_dataset
from imagebart.training.denoiser import DenoiserTask, denoiser_config
from imagebart.training.loop import read_log
from imagebart.training.token_task import (
    TokenDataset,
    conditioner_of,
    encode_store,
    text_config,
    token_tables,
    train_network,
)
from imagebart.training.vqgan import load_first_stage, train_first_stage
from imagebart.weights.folder import CARD, CONFIG, EXAMPLES

RUN = "run"  # in the model's folder: what a run is resumed from
MIN_DENOISER_SHARE = 0.1  # of the hours, whatever the first stage took
HELD_OUT_MEASURED = 64
MAX_TOKEN_BYTES = 64_000_000  # of all views of all images
TIMEOUT = timedelta(days=2)  # of processes that wait while the first one inspects and encodes
KINDS = {"text": "captions", "class": "classes", "none": "neither captions nor classes"}
SUGGESTED = 12  # phrases of captions that the page offers
EXAMPLE_COUNT = 4  # held-out images, each with a mask
MAY_CHANGE = {"hours", "steps", "knows", "license", "credit"}  # settings with which a run can be resumed


def train_model(run: ModelRun, out: Path) -> None:
    """Trains a model, or resumes that, and writes it to a folder."""
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # PartialState does not look there by itself
    processes = PartialState(cpu=on_cpu, timeout=TIMEOUT)
    folder = out / RUN
    with processes.main_process_first():
        if not (folder / "run.json").exists():
            inspect_run(run, folder / "pictures")
            write_text(folder / "run.json", run.model_dump_json(indent=1))
    _check_same(run, folder)
    store = ImageStore(folder / "pictures")
    first_stage = _first_stage(run, store, folder / "first-stage")
    first_stage.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = len(store.index.names)
    views = max(2, min(MAX_VIEWS, MAX_TOKEN_BYTES // (4 * first_stage.config.tokens * count)))
    with processes.main_process_first():
        encode_store(store, first_stage, views, folder / "tokens.safetensors")
    tokens = TokenDataset(folder / "tokens.safetensors", store, store.index.numbers(held_out=False))
    denoiser, conditioner = _denoiser(run, first_stage, tokens, folder)
    if processes.is_main_process:
        about = about_model(run, store, out.resolve().name, conditioner)
        model = ImageBART(first_stage.cpu(), denoiser.cpu(), conditioner, about)
        model.save_pretrained(out, "float16")
        write_text(out / CARD, card(run, store, model, folder))
        write_examples(store, out)
        print(f"{out} is ready: imagebart demo --model {out}")
    processes.wait_for_everyone()


def _check_same(run: ModelRun, folder: Path) -> None:
    """Raises InputError where a run is resumed with other settings than it was started with."""
    started = load(ModelRun, folder / "run.json")
    for name in ModelRun.model_fields.keys() - MAY_CHANGE:
        was, wanted = getattr(started, name), getattr(run, name)
        if was != wanted:
            said = f"The run in {folder} was started with {name.replace('_', ' ')} {was!r}, not {wanted!r}"
            raise InputError(f"{said}; resume it with that, or give another --out.")


def inspect_run(run: ModelRun, folder: Path) -> None:
    """Stores the images in a folder, and says what there is and what will be trained."""
    source = open_dataset(run.data)
    config = _first_stage_config(run, source)
    print(*inspect_dataset(source, config.resolution, folder), sep="\n")
    size, side = config.resolution, config.side
    print(f"{size} × {size} pixels, {side} × {side} tokens of {config.vocab_size:,} codes")
    if run.trained_first_stage is not None:
        print(f"first stage: that of {run.trained_first_stage}")
    if run.init_from is None:
        shape = run.shape or denoiser_shape(size)
        print(f"denoiser: {shape.depth} + {shape.encoder_depth} layers of {shape.width}")
    else:
        print(f"denoiser: that of {run.init_from}, trained further")


def _first_stage(run: ModelRun, store: ImageStore, folder: Path) -> FirstStage:
    """Trained in a folder, or the one that was given."""
    with PartialState().main_process_first():
        if run.trained_first_stage is not None and not (folder / CONFIG).exists():
            ImageBART(load_first_stage(run.trained_first_stage)).save_pretrained(folder)
    if (folder / CONFIG).exists():
        return load_first_stage(folder)
    PartialState().print("part 1 of 2: the first stage, pixels to tokens and back")
    loop = _loop(run, run.steps.first_stage if run.steps else None, run.hours and run.hours * run.first_stage_share)
    model = run.model or first_stage_config(store.index.resolution)
    loss = run.loss or FirstStageLoss(adversarial=AdversarialLoss(start=1 / 3))
    settings = FirstStageRun(data=run.data, model=model, loop=loop, loss=loss)
    views = AugmentedViews(store, store.index.numbers(held_out=False), MAX_VIEWS)
    held_out = store.images(store.index.numbers(held_out=True)[:HELD_OUT_MEASURED])
    return train_first_stage(settings, folder, views, held_out=held_out).requires_grad_(False)


def _denoiser(
    run: ModelRun, first_stage: FirstStage, tokens: TokenDataset, folder: Path
) -> tuple[Denoiser, Conditioner]:
    """Trained in a folder, until it is done."""
    PartialState().print("part 2 of 2: the denoiser")
    held_out = AugmentedViews(tokens.store, tokens.store.index.numbers(held_out=True), 1)
    torch.manual_seed(run.seed)
    conditioner = conditioner_of(tokens.store.index.kind, tokens.texts)
    if run.init_from is not None:
        denoiser, conditioner = load_denoiser_to_finetune(run.init_from, conditioner)
    else:
        shape = run.shape or denoiser_shape(first_stage.config.resolution)
        text = text_config(shape, conditioner) if conditioner.kind == "text" else None
        denoiser = Denoiser(denoiser_config(shape, first_stage.config, conditioner, text))
    hours = None
    if run.hours is not None:
        used = sum(record["hours"] for record in read_log(folder / "first-stage")[-1:])
        hours = max(run.hours - used, MIN_DENOISER_SHARE * run.hours)
    loop, grid = _loop(run, run.steps.denoiser if run.steps else None, hours), denoiser.config.color_hint_grid
    settings = DenoiserRun(data="", first_stage="", loop=loop, conditioning=conditioner.kind, color_hint_grid=grid)
    task = DenoiserTask(denoiser, conditioner, first_stage, tokens, settings, held_out)
    return train_network(task, token_tables(denoiser), folder / "denoiser"), conditioner


def _loop(run: ModelRun, steps: int | None, hours: float | None) -> LoopConfig:
    length: dict[str, Any] = {"steps": steps, "hours": hours, "batch_size": run.batch_size, "seed": run.seed}
    return LoopConfig(**length, optimizer="muon", weight_decay=0.01, warmup=50, ema=0.98, log_every=10)


def _first_stage_config(run: ModelRun, source: ImageSource) -> FirstStageConfig:
    """That of the trained first stage, or as asked for, or of the most pixels that half of the images have."""
    if run.trained_first_stage is not None:
        return load_first_stage(run.trained_first_stage).config
    if run.model is not None:
        return run.model
    if run.resolution is not None:
        return first_stage_config(run.resolution)
    short = statistics.median(min(size) for size in source.sizes())
    limit = min(short, 256 if torch.cuda.is_available() else 128)
    return first_stage_config(max((r for r in get_args(Resolution) if r <= limit), default=min(get_args(Resolution))))


def first_stage_config(resolution: int) -> FirstStageConfig:
    """A VQGAN whose tokens depend on their own patch alone, so that those outside a mask do not depend on the rest."""
    unshuffle, multipliers = {32: (2, (1, 1)), 64: (4, (1, 1)), 128: (4, (1, 2)), 256: (4, (1, 2, 2))}[resolution]
    small = resolution < 128
    return FirstStageConfig(
        resolution=resolution,
        channels=64 if small else 96,
        multipliers=multipliers,
        res_blocks=1 if small else 2,
        attention_resolutions=(),
        latent_channels=64 if small else 192,
        code_dim=16,
        codebook_size=256 if small else 1024,
        pixel_unshuffle=unshuffle,
        unit_codes=True,
        encoder="patch",
    )


def denoiser_shape(resolution: int) -> StageShape:
    """The shape of a denoiser that this machine can train in a night or so."""
    if resolution < 128:
        return StageShape(width=128, depth=3, heads=2, encoder_depth=2, query_tokens=8)
    return StageShape(width=512, depth=8, heads=8) if torch.cuda.is_available() else StageShape()


def load_denoiser_to_finetune(folder: str, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """A model's denoiser, to be trained further, with what it learned of words, and a conditioner for those wanted."""
    model = ImageBART.from_pretrained(folder)
    network, known = model.denoiser, model.conditioner
    if network is None:
        raise InputError(f"The model in {folder} has no denoiser to train further; give it as --first-stage.")
    if known.kind != wanted.kind:
        raise InputError(
            f"The model in {folder} was trained with {KINDS[known.kind]}, the images have {KINDS[wanted.kind]}; "
            "give it as --first-stage, then the denoiser starts untrained."
        )
    if isinstance(known, TextConditioner) and isinstance(wanted, TextConditioner) and network.text is not None:
        if wanted.length > known.length:
            raise InputError(
                f"The captions take up to {wanted.length} tokens, and the model in {folder} reads {known.length}; "
                "shorten them."
            )
        wanted = TextConditioner(tokens=wanted.tokens, words=wanted.words, length=known.length)
        network.set_text_encoder(with_vocabulary(network.text, known.tokens, wanted.tokens))
    elif known != wanted:
        raise InputError(f"The model in {folder} was trained with other {KINDS[known.kind]} than the images have.")
    return network.requires_grad_(True), wanted


def about_model(run: ModelRun, store: ImageStore, name: str, conditioner: Conditioner) -> About:
    """The model's name, what it shows, its default settings, and frequent phrases as suggestions."""
    suggestions: dict[str, tuple[str, ...]] = {}
    if conditioner.kind == "text":
        phrases = Counter(phrase.strip() for text in store.index.texts for phrase in re.split(r"[,.;]", text))
        del phrases[""]
        suggestions = {"image": tuple(phrase for phrase, _ in phrases.most_common(SUGGESTED) if len(phrase) <= 40)}
    settings = SamplingSettings(guidance=2.0 if conditioner.length > 0 else 1.0, top_p=0.95, scales=2)
    knows = run.knows or f"images like those of {Path(run.data).name}"
    return About(name=name, knows=knows, sampling=settings, suggestions=suggestions)


def card(run: ModelRun, store: ImageStore, model: ImageBART, folder: Path) -> str:
    """The model's card; folder: of its run."""
    index, config = store.index, model.first_stage.config
    held_out, training = sum(index.held_out), []
    for name, part in (("first stage", "first-stage"), ("denoiser", "denoiser")):
        measured = [record for record in read_log(folder / part) if "held_out" in record]
        if not measured:
            training.append(f"- {name}: that of {Path(run.trained_first_stage or '').name}.")
            continue
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in measured[-1]["held_out"].items())
        took = f"{measured[-1]['hours']:.2f} hours, {measured[-1]['step']:,} steps"
        more = f" more, from {Path(run.init_from).name}" if run.init_from else ""
        training.append(f"- {name}: {took}{more}; on held-out images: {numbers}.")
    text = resources.files("imagebart").joinpath("data/model_card.md").read_text(encoding="utf-8")
    used, texts, license = len(index.names) - held_out, KINDS[index.kind], run.license or "not stated"
    values = {"about": model.about, "config": config, "used": used, "held_out": held_out, "texts": texts}
    credit = f"- {run.credit}" if run.credit else ""
    return text.format(**values, license=license, credit=credit, training="\n".join(training))


def write_examples(store: ImageStore, folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and, for captions, NAME.txt of some held-out images."""
    held_out = store.index.numbers(held_out=True)
    (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(held_out[:: -(-len(held_out) // EXAMPLE_COUNT)], 1):
        text, (image,) = store.index.texts[number], to_images(store.images([number]))
        mask = preset("lower half", image.size)
        if place % 2:
            mask = Image.new("L", image.size)
            ImageDraw.Draw(mask).ellipse(tuple(side * part // 5 for part in (1, 4) for side in image.size), fill=255)
        title = re.sub(r"\W+", "-", text.lower())[:40].strip("-") or "image"
        name = folder / EXAMPLES / f"{place}-{title}"
        save_image(image, name.with_suffix(".png"))
        save_image(mask, name.with_suffix(MASK_SUFFIX))
        if store.index.kind == "text":
            write_text(name.with_suffix(".txt"), text)
