"""From a folder of images to a model: inspect, plan, first stage, tokens, denoiser, the model's folder.

Each part is resumed where it was: what is finished is in files that are there whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from PIL import Image, ImageDraw
from torch import nn

from imagebart.atomic_io import write_text
from imagebart.conditioning import Conditioner, TextConditioner
from imagebart.config import from_dict
from imagebart.errors import InputError
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import preset
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.vqgan import FirstStage, psnr
from imagebart.settings import SamplingSettings
from imagebart.training.codebook_embedding import add_codebook_embedding, merge_codebook_embedding, token_tables
from imagebart.training.config import DenoiserRun, FirstStageLoss, LoopConfig, ModelRun, StageShape
from imagebart.training.data import (
    AugmentedViews,
    DatasetReport,
    ImageStore,
    inspect_dataset,
    open_dataset,
    read_index,
)
from imagebart.training.denoiser import HELD_OUT_MEASURED, TokenDatasetTask, new_denoiser
from imagebart.training.loop import Task, hours_so_far, train
from imagebart.training.plan import (
    MIN_STEPS,
    Plan,
    loop_config,
    make_plan,
    read_plan,
    resolution_for,
    seconds_per_step,
    write_plan,
)
from imagebart.training.progress import progress
from imagebart.training.token_task import TokenDataset, conditioner_of, encode_store, has_tokens, with_words_of
from imagebart.training.validation import Metrics, Validation, read_metrics
from imagebart.training.vqgan import DecoderTask, FirstStageTask, load_first_stage
from imagebart.weights.folder import Part, has_part, load_part, save_part

RUN = "run"  # in the model's folder: everything that a resumed run needs
STEPS = "steps.json"  # that a part was trained for
TEXTURE = 3.0  # times the discriminator's weight in the loss, where the decoder is trained alone
MIN_SHARE = 0.1  # of the hours that the denoiser gets whatever was used up before
SHOWN = 12  # reconstructions in a grid
PATIENCE = timedelta(days=2)  # of processes that wait while the first inspects and encodes
KINDS = {"text": "captions", "class": "classes", "none": "neither captions nor classes"}
SUGGESTED = 12  # phrases of captions that the page offers
CREDITS = "credits.csv"
EXAMPLES, EXAMPLE_COUNT = "examples", 4  # images that were held back, each with a mask

Say = Callable[[str], None]


def dry_run(run: ModelRun, out: Path, say: Say = print) -> None:
    """Inspects the images and says what would be done; writes nothing."""
    first_stage = _trained_first_stage(run)
    resolution, report = _inspect(run, None, first_stage)
    plan = _plan(run, resolution, report.kind, list(report.texts.elements()), out, first_stage)
    for line in (*report.lines(), *plan.lines()):
        say(line)


def train_model(run: ModelRun, out: Path, say: Say = print) -> Path:
    """Does all of it, or what is left of it; returns the model's folder.

    Raises InputError, in a sentence, for what cannot be used; OSError where the disk is full. Nothing trained is lost.
    """
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # PartialState does not look there by itself
    folder, processes = out / RUN, PartialState(cpu=on_cpu, timeout=PATIENCE)
    if not processes.is_main_process:
        say = _say_nothing
    plan, store = _prepare(run, folder, say)
    first_stage = _train_first_stage(plan, store, folder / "first-stage", say)
    if processes.is_main_process and not has_tokens(folder / "tokens"):
        say("part 2 of 3: pictures to tokens")
        with progress("views") as bar:
            task = bar.add_task("", total=len(store.index.names) * plan.views)
            encode_store(store, first_stage, plan.views, folder / "tokens", lambda n: bar.advance(task, n))
    processes.wait_for_everyone()
    first_stage = _train_decoder(plan, store, first_stage, folder, say)
    _train_denoiser(plan, store, first_stage, folder, say)
    if processes.is_main_process:
        part = load_part(folder / "denoiser", Denoiser)
        about = about_model(plan, store, out.resolve().name, part.conditioner)
        model = ImageBART(first_stage.cpu(), part.module, part.conditioner, about)
        model.save_pretrained(out, "float16")
        write_card(plan, store, model, out, folder)
        write_examples(store, out)
        say(f"{out} is ready: python app.py --model {out}")
    return out


def _say_nothing(line: str) -> None: ...


def _prepare(run: ModelRun, folder: Path, say: Say) -> tuple[Plan, ImageStore]:
    """Inspects and plans, unless that is done. A resumed run may become longer; else its settings stay.

    The first process inspects and writes; all of them time steps together.
    """
    processes, images = PartialState(), folder / "pictures"
    before = read_plan(folder) if read_index(images) is not None else None
    if before is not None:
        _check_same(before, run, folder)
        plan, lines = replace(before, run=run), [f"going on with {folder.parent}, planned for {run.hours:g} hours"]
    else:
        lines, first_stage = [], _trained_first_stage(run)
        if processes.is_main_process:
            _, report = _inspect(run, images, first_stage)
            left_out = {"left out": report.unusable, "there twice": report.duplicates}
            write_text(folder / "look.json", json.dumps(left_out, indent=1))
            lines += report.lines()
        processes.wait_for_everyone()
        index = read_index(images)
        assert index is not None
        plan = _plan(run, index.resolution, index.kind, list(index.texts), folder, first_stage)
        lines += plan.lines()
    processes.wait_for_everyone()
    for line in lines:
        say(line)
    if processes.is_main_process:
        write_plan(plan, folder)
    processes.wait_for_everyone()
    written = read_plan(folder)  # by the first process, whose clock decides
    assert written is not None
    return written, ImageStore(images)


def _inspect(run: ModelRun, folder: Path | None, first_stage: FirstStage | None) -> tuple[int, DatasetReport]:
    """The resolution to train at, and what there is to train on. With a folder, images are stored there."""
    source = open_dataset(run.data)
    resolution = resolution_for(run, first_stage.config if first_stage else None, source)
    with progress("pictures") as bar:
        task = bar.add_task("looking", total=None)
        return resolution, inspect_dataset(source, resolution, folder, lambda n: bar.advance(task, n))


def _plan(
    run: ModelRun, resolution: int, kind: str, texts: list[str], folder: Path, first_stage: FirstStage | None
) -> Plan:
    """The plan for images with these texts. Raises InputError for a denoiser to finetune that was trained otherwise."""
    shape = None
    if run.init_from is not None:
        network, _ = load_denoiser_to_finetune(run.init_from, conditioner_of(kind, texts))
        shape = StageShape.of(network.config)
    return make_plan(run, len(texts), resolution, folder, first_stage.config if first_stage else None, shape)


def _check_same(before: Plan, run: ModelRun, folder: Path) -> None:
    """Raises InputError where a run is resumed with other settings than it was begun with."""
    free = ("hours", "steps", "knows", "licence", "credit")
    was, asked = asdict(before.run), asdict(run)
    if run.steps is not None and run.steps.first_stage and before.steps:
        was["first-stage steps"], asked["first-stage steps"] = before.steps, run.steps.first_stage
    for name, value in asked.items():
        if name not in free and value != was[name]:
            raise InputError(
                f"The run in {folder} was begun with {name.replace('_', ' ')} {was[name]!r}, not {value!r}; "
                "go on with that, or give another --out."
            )


def _train_first_stage(plan: Plan, store: ImageStore, folder: Path, say: Say) -> FirstStage:
    """The first stage of a run: trained, or a copy of the one that was given."""
    if not has_part(folder):
        first_stage: nn.Module | None = _trained_first_stage(plan.run)
        if first_stage is None:
            say("part 1 of 3: the first stage, pixels to tokens and back")
            torch.manual_seed(plan.run.seed)
            model = FirstStage(plan.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            task = _first_stage_task(FirstStageTask, model, plan, store, plan.loss)
            begin = plan.loss.adversarial.begin if plan.loss.adversarial else 0
            config = loop_config(plan.run, plan.steps, plan.seconds)
            first_stage = train(task, config, folder, _reconstruction_validation(folder, store, say, begin))
        _save_on_main(Part(first_stage), folder)
    return _load_first_stage_part(folder)


def _train_decoder(plan: Plan, store: ImageStore, first_stage: FirstStage, folder: Path, say: Say) -> FirstStage:
    """The first stage with its decoder trained further alone, where hours were added; tokens stay what they were.

    Colours and forms are settled, and what is left is how surfaces look: so the discriminator counts for more.
    """
    place = folder / "decoder"
    if plan.decoder_hours:
        loss = plan.loss
        if loss.adversarial is not None:
            weight, matching = TEXTURE * loss.adversarial.weight, TEXTURE * loss.adversarial.matching
            loss = replace(loss, adversarial=replace(loss.adversarial, begin=0, weight=weight, matching=matching))

        def new_task(config: LoopConfig) -> FirstStageTask:
            torch.manual_seed(plan.run.seed)
            model = _load_first_stage_part(folder / "first-stage").requires_grad_(True)
            return _first_stage_task(DecoderTask, model, plan, store, loss)

        steps = plan.run.steps.decoder if plan.run.steps else None
        config = _loop_for(plan, folder / "decoder.json", plan.decoder_hours, steps, new_task)
        config = replace(config, seed=plan.run.seed + 1)  # other batches than those of the first stage
        if not _is_trained(place, config.steps):
            say(f"the decoder alone, {config.steps:,} steps")
            trained = train(new_task(config), config, place, _reconstruction_validation(place, store, say))
            _save_on_main(Part(trained), place, config.steps)
    return _load_first_stage_part(place) if has_part(place) else first_stage


def _train_denoiser(plan: Plan, store: ImageStore, first_stage: FirstStage, folder: Path, say: Say) -> None:
    """Trains the denoiser, unless it is there for as many hours as asked for."""
    place = folder / "denoiser"
    train_set = TokenDataset(folder / "tokens", store, store.index.numbers(False))
    held_out = TokenDataset(folder / "tokens", store, store.index.numbers(True))
    conditioner = conditioner_of(store.index.kind, train_set.texts)

    def new_task(config: LoopConfig) -> TokenDatasetTask:
        torch.manual_seed(plan.run.seed)
        if plan.run.init_from is not None:
            network, cond = load_denoiser_to_finetune(plan.run.init_from, conditioner)
        else:
            network, cond = new_denoiser(first_stage, plan.shape, conditioner), conditioner
        run = DenoiserRun(
            data=str(folder),
            first_stage=str(folder),
            loop=config,
            shape=plan.shape,
            conditioning=cond.kind,
            color_hint_grid=network.config.color_hint_grid,
        )
        add_codebook_embedding(token_tables(network), first_stage.quantize.codes().detach())
        return TokenDatasetTask(network, cond, first_stage, train_set, held_out, run)

    used = hours_so_far(folder / "first-stage") + plan.decoder_hours
    hours = max(plan.run.hours - used, MIN_SHARE * plan.run.hours)
    steps = plan.run.steps.denoiser if plan.run.steps else None
    config = _loop_for(plan, folder / "denoiser.json", hours, steps, new_task)
    if _is_trained(place, config.steps):
        return
    say(f"part 3 of 3: the denoiser, {config.steps:,} steps")
    task = new_task(config)
    trained = train(task, config, place, Validation(place, task.validate, say))
    merge_codebook_embedding(trained)
    _save_on_main(Part(trained, task.conditioner), place, config.steps)


def _loop_for(
    plan: Plan, path: Path, hours: float, steps: int | None, new_task: Callable[[LoopConfig], Task]
) -> LoopConfig:
    """How a part is trained in so many hours, or steps: as it was decided when these were first asked for."""
    processes = PartialState()
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    processes.wait_for_everyone()
    if known is None or known["hours"] != plan.run.hours or steps not in (None, known["loop"]["steps"]):
        timed = loop_config(plan.run, MIN_STEPS, 1.0)
        seconds = seconds_per_step(new_task(timed), timed)
        config = loop_config(plan.run, steps or max(MIN_STEPS, int(3600 * hours / seconds)), seconds)
        if processes.is_main_process:
            write_text(path, json.dumps({"hours": plan.run.hours, "loop": asdict(config)}, indent=1))
        processes.wait_for_everyone()
        known = json.loads(path.read_text(encoding="utf-8"))
    return from_dict(LoopConfig, known["loop"])


def _first_stage_task(
    kind: type[FirstStageTask], model: FirstStage, plan: Plan, store: ImageStore, loss: FirstStageLoss
) -> FirstStageTask:
    """A first stage in training on all views of the images; its grids show images that were held back."""
    views = AugmentedViews(store, store.index.numbers(False), plan.views)
    task = kind(model, views, torch.ones(plan.model.resolution, plan.model.resolution), loss)
    task.preview = torch.stack([store.view(number, 0) for number in store.index.numbers(True)[:SHOWN]])
    return task


def _reconstruction_validation(folder: Path, store: ImageStore, say: Say, settled_after: int = 0) -> Validation:
    images = store.images(store.index.numbers(True)[:HELD_OUT_MEASURED])
    return Validation(folder, lambda model: measure_reconstruction(model, images), say, settled_after)


@torch.no_grad()
def measure_reconstruction(model: nn.Module, images: torch.Tensor) -> Metrics:
    """Of images [B, 3, H, W]: the mean error in levels of 255, PSNR in dB, the share of codes in use."""
    assert isinstance(model, FirstStage)
    device, decoded, used = next(model.parameters()).device, [], set()
    for part in images.split(16):
        tokens = model.encode(part.to(device))
        decoded.append(model.decode(tokens).clamp(-1, 1).float().cpu())
        used |= set(tokens.unique().tolist())
    again = torch.cat(decoded)
    error, codes = 127.5 * float((again - images).square().mean().sqrt()), len(used) / model.config.vocab_size
    return {"error": error, "psnr": float(psnr(again, images).mean()), "codes": codes}


def _load_first_stage_part(folder: Path) -> FirstStage:
    first_stage = load_part(folder, FirstStage).module
    return first_stage.to(PartialState().device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _is_trained(place: Path, steps: int) -> bool:
    """Whether a part is there that was trained for so many steps."""
    return has_part(place) and json.loads((place / STEPS).read_text())["steps"] >= steps


def _save_on_main(part: Part[Any], place: Path, steps: int | None = None) -> None:
    """Writes a part, and the steps that it was trained for, by the first process."""
    if PartialState().is_main_process:
        save_part(part, place)
        if steps is not None:
            write_text(place / STEPS, json.dumps({"steps": steps}))
    PartialState().wait_for_everyone()


# What is used of a finished model: its first stage, or all of it.


def _trained_first_stage(run: ModelRun) -> FirstStage | None:
    """The first stage that was given, None where one is trained. Raises InputError where there is none."""
    return None if run.trained_first_stage is None else load_first_stage(Path(run.trained_first_stage))


def load_denoiser_to_finetune(folder: str, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """A model's denoiser, to be trained further, and a conditioner that knows the words of `wanted`.

    The denoiser keeps what it learned of words that both know. Raises InputError where it was trained with other
    conditioning.
    """
    try:
        model = ImageBART.from_pretrained(folder)
    except ValueError as error:
        raise InputError(f"No model can be gone on from in {folder}: {error}") from error
    network, known = model.denoiser, model.conditioner
    if network is None:
        raise InputError(
            f"The model in {folder} has stages, and one with a denoiser is expected; give it as --first-stage."
        )
    anew = "give it as --first-stage, then the denoiser begins anew."
    if known.kind != wanted.kind:
        raise InputError(
            f"The model in {folder} was trained with {KINDS[known.kind]}, the pictures have {KINDS[wanted.kind]}; "
            + anew
        )
    if isinstance(known, TextConditioner) and isinstance(wanted, TextConditioner) and network.text is not None:
        if wanted.length > known.length:
            raise InputError(
                f"The captions take up to {wanted.length} tokens, and the model in {folder} reads {known.length}; "
                f"shorten them, or {anew}"
            )
        conditioner = TextConditioner(wanted.tokens, wanted.words, known.length)
        network.set_text_encoder(with_words_of(network.text, known, conditioner))
        return network.requires_grad_(True), conditioner
    if known.to_config() != wanted.to_config():
        kind = KINDS[known.kind]
        raise InputError(f"The model in {folder} was trained with other {kind} than the pictures have; {anew}")
    return network.requires_grad_(True), known


# The model's folder beside its weights: what it knows, its card, and examples for the page.


def about_model(plan: Plan, store: ImageStore, name: str, conditioner: Conditioner) -> About:
    """The model's name, what it knows, its best settings, and frequent phrases as suggestions."""
    suggestions: dict[str, tuple[str, ...]] = {}
    if conditioner.kind == "text":
        phrases = Counter(phrase.strip() for text in store.index.texts for phrase in re.split(r"[,.;]", text))
        del phrases[""]
        suggestions = {"picture": tuple(phrase for phrase, _ in phrases.most_common(SUGGESTED) if len(phrase) <= 40)}
    settings = SamplingSettings(guidance=2.0 if conditioner.length > 0 else 1.0, top_p=0.95, scales=2)
    return About(name, plan.run.knows or f"pictures like those of {Path(plan.run.data).name}", settings, suggestions)


def write_card(plan: Plan, store: ImageStore, model: ImageBART, out: Path, folder: Path) -> None:
    """Writes README.md, and the images' authors where the data name them."""
    credited = [(n, credit) for n, credit in zip(store.index.names, store.index.credits, strict=True) if credit]
    if credited:
        columns = list(dict.fromkeys(key for _, credit in credited for key in credit))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *columns])
        writer.writerows([name, *(credit.get(column, "") for column in columns)] for name, credit in credited)
        write_text(out / CREDITS, text.getvalue())
    write_text(out / "README.md", "\n".join(_card(plan, store, model, folder, len(credited))) + "\n")


def _card(plan: Plan, store: ImageStore, model: ImageBART, folder: Path, credited: int) -> Iterator[str]:
    index, config = store.index, model.first_stage.config
    size, side = config.resolution, config.side
    yield "---\nlicense: other\ntags:\n  - imagebart\n  - inpainting\n---\n"
    yield f"# {model.about.name}\n"
    yield (
        f"An ImageBART of {model.about.knows}: {size} × {size} pixels, {side} × {side} tokens of "
        f"{config.vocab_size:,} codes, one denoiser for every noise level. Made by `imagebart train model`.\n"
    )
    yield "## Data\n"
    texts = {"text": "with captions", "class": "in classes", "none": "without captions or classes"}[index.kind]
    held = sum(index.held)
    yield f"- {len(index.names) - held:,} pictures {texts} to train on, {held:,} held back to measure with."
    yield f"- Licence of the pictures: {plan.run.licence or 'not stated'}."
    if plan.run.credit:
        yield f"- {plan.run.credit}"
    if credited:
        yield f"- The authors of {credited:,} pictures are named in [{CREDITS}]({CREDITS})."
    yield "\n## Training\n"
    for name, part in (("first stage", "first-stage"), ("its decoder alone", "decoder"), ("denoiser", "denoiser")):
        metrics = read_metrics(folder / part)
        if not metrics:
            if part != "decoder":
                yield f"- {name}: taken over from {Path(plan.run.trained_first_stage or '').name}."
            continue
        more = f" more, from {Path(plan.run.init_from).name}" if plan.run.init_from else ""
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in metrics[-1].items() if key not in ("step", "hours"))
        yield (
            f"- {name}: {hours_so_far(folder / part):.2f} hours, {metrics[-1]['step']:,.0f} steps{more}; "
            f"on held-back pictures: {numbers}."
        )
    yield (
        "\nerror: of reconstructions, in levels of 255; psnr in dB; codes: share in use; loss: nats a token, `half` "
        "with the upper half known, `whole` with nothing known.\n"
    )
    yield "## Limits\n"
    yield f"- It knows {model.about.knows} and nothing else; other pictures can be edited, but only into these."
    if index.kind == "text":
        yield "- It reads the words of its captions only; others are named and left out."
    yield "- What training pictures show wrongly, or seldom, it draws wrongly, or seldom."
    yield "- Small pictures: details under some pixels are lost in the tokens."


def write_examples(store: ImageStore, folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and, for captions, NAME.txt of some held-back images.

    Each has the most words that those before it lack. Masks are an ellipse in the middle, or the lower half, in turn.
    """
    texts = store.index.texts
    words = {number: set(re.findall(r"\w+", texts[number].lower())) for number in store.index.numbers(True)}
    known = set[str]()
    (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
    for place in range(1, min(EXAMPLE_COUNT, len(words)) + 1):
        number = max(words, key=lambda number: len(words[number] - known))  # the first of equals
        known |= words.pop(number)
        (image,) = to_images(store.images([number]))
        mask = preset("lower half", image.size)
        if place % 2:
            mask = Image.new("L", image.size)
            ImageDraw.Draw(mask).ellipse(tuple(side * part // 5 for part in (1, 4) for side in image.size), fill=255)
        title = re.sub(r"\W+", "-", texts[number].lower())[:40].strip("-") or "picture"
        name = folder / EXAMPLES / f"{place}-{title}"
        save_image(image, name.with_suffix(".png"))
        save_image(mask, name.with_suffix(".mask.png"))
        if store.index.kind == "text":
            write_text(name.with_suffix(".txt"), texts[number])
