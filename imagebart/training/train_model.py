"""What a training of someone's own pictures takes over from a finished model: its first stage, or all that it knows."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from PIL import Image, ImageDraw
from torch import nn
from torch.utils.data import default_collate

from imagebart.atomic_io import write_text
from imagebart.conditioning import Conditioner, TextConditioner
from imagebart.config import from_dict
from imagebart.errors import InputError
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import preset
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.progress import progress
from imagebart.settings import SamplingSettings
from imagebart.training.codebook_embedding import add_codebook_embedding, merge_codebook_embedding, token_tables
from imagebart.training.config import AdversarialLoss, DenoiserRun, FirstStageLoss, LoopConfig, StageShape
from imagebart.training.data import AugmentedViews, ImageStore, read, read_index
from imagebart.training.denoiser import (
    HELD,
    TokenDataset,
    TokenDatasetTask,
    conditioner_of,
    encode_store,
    has_tokens,
    new_denoiser,
)
from imagebart.training.loop import Task, hours_so_far, train
from imagebart.training.parts import load_first_stage, with_words_of
from imagebart.training.plan import (
    LEAST_STEPS,
    DatasetReport,
    ModelRun,
    Plan,
    inspect_dataset,
    loop,
    make_plan,
    read_plan,
    resolution_for,
    seconds_per_step,
    write_plan,
)
from imagebart.training.validation import Metrics, Validation, read_metrics
from imagebart.training.vqgan import DecoderTask, FirstStageTask
from imagebart.weights.folder import Part, has_part, load_part, save_part

SAID = {"text": "captions", "class": "classes", "none": "neither captions nor classes"}


def given_first_stage(run: ModelRun) -> FirstStage | None:
    """The first stage that is taken over, None where one is trained. Raises InputError where there is none."""
    return None if run.given is None else load_first_stage(Path(run.given))


def given_shape(run: ModelRun, wanted: Conditioner) -> StageShape | None:
    """The sizes of the denoiser that is trained on; None where one is begun. Raises as `given_denoiser`."""
    if run.begin_from is None:
        return None
    network = given_denoiser(run.begin_from, wanted)[0].config
    decoder, text = network.decoder, network.text
    slots = (
        (text.query_tokens, text.conv_width) if text is not None else (StageShape.query_tokens, StageShape.conv_width)
    )
    return StageShape(decoder.width, decoder.depth, decoder.heads, decoder.head_size, network.encoder.depth, *slots)


def given_denoiser(begin_from: str, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """A model's denoiser, to be trained on, and what it is told: words of the captions that `wanted` knows.

    Of words that it knew it keeps what it knew. Raises InputError where it was trained with other conditioning.
    """
    network, known = _given_denoiser(begin_from)
    if known.kind != wanted.kind:
        raise InputError(
            f"The model in {begin_from} was trained with {SAID[known.kind]}, the pictures have {SAID[wanted.kind]}; "
            "give it as --first-stage, then the denoiser begins anew."
        )
    if isinstance(known, TextConditioner) and isinstance(wanted, TextConditioner) and network.text is not None:
        if wanted.length > known.length:
            raise InputError(
                f"The captions take up to {wanted.length} tokens, and the model in {begin_from} reads {known.length}; "
                "shorten them, or give it as --first-stage, then the denoiser begins anew."
            )
        told = TextConditioner(wanted.tokens, wanted.words, known.length)
        network.set_text_encoder(with_words_of(network.text, known, told))
        return network.requires_grad_(True), told
    if known.to_config() != wanted.to_config():
        raise InputError(
            f"The model in {begin_from} was told of other {SAID[known.kind]} than the pictures have; "
            "give it as --first-stage, then the denoiser begins anew."
        )
    return network.requires_grad_(True), known


def _given_denoiser(begin_from: str) -> tuple[Denoiser, Conditioner]:
    try:
        model = ImageBART.from_pretrained(begin_from)
    except ValueError as error:
        raise InputError(f"No model can be gone on from in {begin_from}: {error}") from error
    if model.denoiser is None:
        raise InputError(
            f"The model in {begin_from} has stages, and one with a denoiser is expected; give it as --first-stage."
        )
    return model.denoiser, model.conditioner


# What a model of someone's own pictures says of itself: what it knows, its card, and its examples for the page.


SUGGESTED = 12  # phrases of captions that the page offers
NOT_STATED = "not stated"
CREDITS = "credits.csv"
COUNT, EXAMPLES = 4, "examples"  # pictures that were held back, each with a mask


def about_model(plan: Plan, store: ImageStore, name: str, conditioner: Conditioner) -> About:
    """What people are told of the model, and how it is best drawn with."""
    suggestions: dict[str, tuple[str, ...]] = {}
    guided = conditioner.length > 0
    if conditioner.kind == "text":
        phrases = Counter(phrase.strip() for text in store.pictures.texts for phrase in re.split(r"[,.;]", text))
        del phrases[""]
        suggestions = {"picture": tuple(phrase for phrase, _ in phrases.most_common(SUGGESTED) if len(phrase) <= 40)}
    settings = SamplingSettings(guidance=2.0 if guided else 1.0, top_p=0.95, scales=2)
    return About(name, plan.run.knows or f"pictures like those of {Path(plan.run.data).name}", settings, suggestions)


def write_card(plan: Plan, store: ImageStore, model: ImageBART, out: Path, folder: Path) -> None:
    """Writes README.md, and the pictures' authors where the data name them."""
    pictures = store.pictures
    named = zip(pictures.names, pictures.credits, strict=True)
    rows = [(name, credit) for name, credit in named if credit]
    if rows:
        columns = list(dict.fromkeys(key for _, credit in rows for key in credit))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *columns])
        writer.writerows([name, *(credit.get(column, "") for column in columns)] for name, credit in rows)
        write_text(out / CREDITS, text.getvalue())
    write_text(out / "README.md", "\n".join(_card(plan, store, model, folder, len(rows))) + "\n")


def _card(plan: Plan, store: ImageStore, model: ImageBART, folder: Path, credited: int) -> Iterator[str]:
    pictures, config = store.pictures, model.first_stage.config
    size, side = config.resolution, config.side
    yield "---\nlicense: other\ntags:\n  - imagebart\n  - inpainting\n---\n"
    yield f"# {model.about.name}\n"
    yield (
        f"An ImageBART of {model.about.knows}: {size} × {size} pixels, {side} × {side} tokens of "
        f"{config.vocab_size:,} codes, one denoiser for every noise rate. Made by `imagebart train model`.\n"
    )
    yield "## Data\n"
    said = {"text": "with captions", "class": "in classes", "none": "without captions or classes"}[pictures.kind]
    held = sum(pictures.held)
    yield f"- {len(pictures.names) - held:,} pictures {said} to train on, {held:,} held back to measure with."
    yield f"- Licence of the pictures: {plan.run.licence or NOT_STATED}."
    if plan.run.credit:
        yield f"- {plan.run.credit}"
    if credited:
        yield f"- The authors of {credited:,} pictures are named in [{CREDITS}]({CREDITS})."
    yield "\n## Training\n"
    for name, part in (("first stage", "first-stage"), ("its decoder alone", "decoder"), ("denoiser", "denoiser")):
        figures = read_metrics(folder / part)
        if part == "decoder" and not figures:
            continue
        hours = hours_so_far(folder / part)
        if not figures:
            yield f"- {name}: taken over from {Path(plan.run.given or '').name}."
            continue
        more = f" more, from {Path(plan.run.begin_from).name}" if plan.run.begin_from else ""
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in figures[-1].items() if key not in ("step", "hours"))
        yield f"- {name}: {hours:.2f} hours, {figures[-1]['step']:,.0f} steps{more}; on held-back pictures: {numbers}."
    yield (
        "\nerror: of reconstructions, in levels of 255; psnr in dB; codes: share in use; loss: nats a token, `half` "
        "with the upper half known, `whole` with nothing known.\n"
    )
    yield "## Limits\n"
    yield f"- It knows {model.about.knows} and nothing else; other pictures can be edited, but only into these."
    if pictures.kind == "text":
        yield "- It reads the words of its captions only; others are named and left out."
    yield "- What training pictures show wrongly, or seldom, it draws wrongly, or seldom."
    yield "- Small pictures: details under some pixels are lost in the tokens."


def write_examples(store: ImageStore, folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and, for captions, NAME.txt, whose words are as different as can be."""
    texts = store.pictures.texts
    chosen = _different(store.pictures.numbers(True), texts)
    (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
    for place, (number, image) in enumerate(zip(chosen, to_images(store.images(chosen)), strict=True), 1):
        words = re.sub(r"\W+", "-", texts[number].lower())[:40].strip("-") or "picture"
        name = folder / EXAMPLES / f"{place}-{words}"
        save_image(image, name.with_suffix(".png"))
        save_image(_mask(image.size, place), name.with_suffix(".mask.png"))
        if store.pictures.kind == "text":
            write_text(name.with_suffix(".txt"), texts[number])


def _different(numbers: Sequence[int], texts: Sequence[str]) -> list[int]:
    """Pictures, each with the most words that those before it lack; the first of equals."""
    words = {number: set(re.findall(r"\w+", texts[number].lower())) for number in numbers}
    chosen, known = list[int](), set[str]()
    while words and len(chosen) < COUNT:
        best = max(words, key=lambda number: len(words[number] - known))
        known |= words.pop(best)
        chosen.append(best)
    return chosen


def _mask(size: tuple[int, int], place: int) -> Image.Image:
    """An ellipse in the middle, or the lower half: in turn."""
    if place % 2 == 0:
        return preset("lower half", size)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(tuple(side * part // 5 for part in (1, 4) for side in size), fill=255)
    return mask


# From a folder of pictures to a model: look, plan, first stage, tokens, denoiser, the model's folder.
#
# Each part is gone on with where it was: what is finished is in files that are there whole or not at all.


RUN = "run"  # in the model's folder: everything that going on needs
TEXTURE = 3.0  # times the discriminator's weight in the loss, where the decoder is trained alone
LEAST_SHARE = 0.1  # of the hours that the denoiser gets whatever was used up before
STEPS = "steps.json"  # that a part was trained for
SHOWN = 12  # reconstructions in a grid
PATIENCE = timedelta(days=2)  # of processes that wait while the first looks and encodes

Say = Callable[[str], None]


def dry_run(run: ModelRun, out: Path, say: Say = print) -> None:
    """Looks at the pictures and says what would be done; writes nothing."""
    first_stage = given_first_stage(run)
    found = _look(run, None, first_stage)
    for line in (*found.lines(), *_planned(run, found, first_stage, out).lines()):
        say(line)


def train_model(run: ModelRun, out: Path, say: Say = print) -> Path:
    """Does all of it, or what is left of it; returns the model's folder.

    Raises InputError, in a sentence, for what cannot be used; OSError where the disk is full. Nothing trained is lost.
    """
    folder, processes = out / RUN, PartialState(timeout=PATIENCE)
    if processes.is_main_process:
        _prepare(run, folder, say)
    processes.wait_for_everyone()
    plan = read_plan(folder)
    assert plan is not None
    store = ImageStore(folder / "pictures")
    first_stage = _first_stage(plan, store, folder / "first-stage", say)
    if processes.is_main_process and not has_tokens(folder / "tokens"):
        say("part 2 of 3: pictures to tokens")
        with progress("views") as bar:
            counted = bar.add_task("", total=len(store.pictures.names) * plan.views)
            encode_store(store, first_stage, plan.views, folder / "tokens", lambda n: bar.advance(counted, n))
    processes.wait_for_everyone()
    first_stage = _decoder(plan, store, first_stage, folder, say)
    _denoiser(plan, store, first_stage, folder, say)
    if processes.is_main_process:
        part = load_part(folder / "denoiser", Denoiser)
        model = ImageBART(first_stage.cpu(), part.module, part.conditioner)
        model.about = about_model(plan, store, out.resolve().name, part.conditioner)
        model.save_pretrained(out, "float16")
        write_card(plan, store, model, out, folder)
        write_examples(store, out)
        say(f"{out} is ready: python app.py --model {out}")
    return out


def _prepare(run: ModelRun, folder: Path, say: Say) -> None:
    """Looks and plans, unless that is done."""
    before = read_plan(folder)
    if before is not None and read_index(folder / "pictures") is not None:
        _check_same(before, run, folder)
        say(f"going on with {folder.parent}, planned for {run.hours:g} hours")
        write_plan(replace(before, run=run), folder)
        return
    first_stage = given_first_stage(run)
    found = _look(run, folder / "pictures", first_stage)
    plan = _planned(run, found, first_stage, folder)
    write_text(folder / "look.json", json.dumps({"left out": found.left_out, "there twice": found.twice}, indent=1))
    for line in (*found.lines(), *plan.lines()):
        say(line)
    write_plan(plan, folder)


def _planned(run: ModelRun, found: DatasetReport, first_stage: FirstStage | None, folder: Path) -> Plan:
    shape = given_shape(run, conditioner_of(found.kind, list(found.texts)))
    return make_plan(run, found, first_stage.config if first_stage else None, folder, shape)


def _look(run: ModelRun, folder: Path | None, first_stage: FirstStage | None) -> DatasetReport:
    source = read(run.data)
    sizes = [(10_000, 10_000)] if first_stage is None else [(first_stage.config.resolution,) * 2]
    chosen = replace(run, resolution=first_stage.config.resolution) if first_stage is not None else run
    if run.resolution is None and run.model is None and first_stage is None:
        sizes = source.sizes()
    with progress("pictures") as bar:
        counted = bar.add_task("looking", total=None)
        return inspect_dataset(source, resolution_for(chosen, sizes), folder, lambda n: bar.advance(counted, n))


def _check_same(before: Plan, run: ModelRun, folder: Path) -> None:
    """Raises InputError where a run is gone on with otherwise than it was begun; it may become longer."""
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


def _first_stage(plan: Plan, store: ImageStore, folder: Path, say: Say) -> FirstStage:
    """Trains the first stage, or takes it over, unless it is there."""
    if not has_part(folder):
        given = given_first_stage(plan.run)
        if given is None:
            say("part 1 of 3: the first stage, pixels to tokens and back")
            torch.manual_seed(plan.run.seed)
            model = FirstStage(plan.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            task = _on_views(FirstStageTask, model, plan, store, plan.loss)
            begin = plan.loss.adversarial.begin if plan.loss.adversarial else 0
            given = train(task, plan.first_loop(), folder, _follow(folder, store, say, begin))  # type: ignore[assignment]
        _save_on_main(lambda: save_part(Part(given), folder))
    return _placed(load_part(folder, FirstStage).module)


def _decoder(plan: Plan, store: ImageStore, first_stage: FirstStage, folder: Path, say: Say) -> FirstStage:
    """The first stage with its decoder trained on alone, where hours were added; tokens stay what they were."""
    place = folder / "decoder"
    if plan.added:
        loss = plan.loss
        if loss.adversarial is not None:
            loss = replace(loss, adversarial=texture_loss(loss.adversarial))

        def task() -> FirstStageTask:
            torch.manual_seed(plan.run.seed)
            model = _placed(load_part(folder / "first-stage", FirstStage).module).requires_grad_(True)
            return _on_views(DecoderTask, model, plan, store, loss)

        steps = plan.run.steps.decoder if plan.run.steps else None
        config = _loop(plan, folder / "decoder.json", plan.added, steps, task)
        config = replace(config, seed=plan.run.seed + 1)  # not what the first stage saw, in that order once more
        if not _trained(place, config.steps):
            say(f"the decoder alone, {config.steps:,} steps")
            trained = train(task(), config, place, _follow(place, store, say, 0))
            _save_part(lambda: save_part(Part(trained), place), place, config.steps)
    return _placed(load_part(place, FirstStage).module) if has_part(place) else first_stage


def texture_loss(loss: AdversarialLoss) -> AdversarialLoss:
    """What a decoder learns by alone: colours and forms are settled, and what is left is how surfaces look."""
    return replace(loss, begin=0, weight=TEXTURE * loss.weight, matching=TEXTURE * loss.matching)


def _on_views(
    kind: type[FirstStageTask], model: FirstStage, plan: Plan, store: ImageStore, loss: FirstStageLoss
) -> FirstStageTask:
    """A first stage in training on all views of the pictures; what was held back is shown."""
    views = AugmentedViews(store, store.pictures.numbers(False), plan.views)
    task = kind(model, views, torch.ones(plan.model.resolution, plan.model.resolution), loss)
    task.preview = ((store.images(store.pictures.numbers(True)[:SHOWN]) + 1) * 127.5).round().byte()
    return task


def _follow(folder: Path, store: ImageStore, say: Say, begin: int) -> Validation:
    held = store.images(store.pictures.numbers(True)[:HELD])
    return Validation(folder, lambda model: reconstruction(model, held), say, begin)


def _placed(first_stage: FirstStage) -> FirstStage:
    return first_stage.to(PartialState().device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def reconstruction(model: nn.Module, images: torch.Tensor) -> Metrics:
    """How pictures [B, 3, H, W] come back: the mean error in levels of 255, PSNR in dB, the share of codes in use."""
    assert isinstance(model, FirstStage)
    device, errors, used = next(model.parameters()).device, [], set()
    for part in images.split(16):
        tokens = model.encode(part.to(device))
        errors.append((model.decode(tokens).clamp(-1, 1).float().cpu() - part).square().flatten(1).mean(1) / 4)
        used |= set(tokens.unique().tolist())
    error = torch.cat(errors)
    psnr = float((-10 * error.clamp_min(1e-10).log10()).mean())
    return {"error": 255 * float(error.mean().sqrt()), "psnr": psnr, "codes": len(used) / model.config.vocab_size}


def _denoiser(plan: Plan, store: ImageStore, first_stage: FirstStage, folder: Path, say: Say) -> None:
    """Trains the denoiser, unless it is there for as many hours as asked for."""
    place, kind = folder / "denoiser", store.pictures.kind
    train_part = TokenDataset(folder / "tokens", store, store.pictures.numbers(False))
    held = TokenDataset(folder / "tokens", store, store.pictures.numbers(True))
    wanted = conditioner_of(kind, [store.pictures.texts[i] for i in train_part.numbers])

    def task(config: LoopConfig) -> TokenDatasetTask:
        torch.manual_seed(plan.run.seed)
        network, conditioner = _begun(plan, first_stage, wanted)
        run = DenoiserRun(
            data=str(folder),
            first_stage=str(folder),
            loop=config,
            shape=plan.shape,
            conditioning=conditioner.kind,
            color_hint_grid=network.config.color_hint_grid,
        )
        add_codebook_embedding(token_tables(network), first_stage.quantize.codes().detach())
        return TokenDatasetTask(network, conditioner, first_stage, train_part, held, run)

    used = hours_so_far(folder / "first-stage") + plan.added
    left = max(plan.run.hours - used, LEAST_SHARE * plan.run.hours)
    steps = plan.run.steps.denoiser if plan.run.steps else None
    config = _loop(plan, folder / "denoiser.json", left, steps, lambda: task(loop(plan.run, LEAST_STEPS, 1.0)))
    if _trained(place, config.steps):
        return
    say(f"part 3 of 3: the denoiser, {config.steps:,} steps")
    work = task(config)
    trained = train(work, config, place, Validation(place, work.figures, say))
    merge_codebook_embedding(trained)
    _save_part(lambda: save_part(Part(trained, work.conditioner), place), place, config.steps)


def _begun(plan: Plan, first_stage: FirstStage, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """The denoiser before its first step, new or taken over, and what it is told."""
    if plan.run.begin_from is not None:
        return given_denoiser(plan.run.begin_from, wanted)
    return new_denoiser(first_stage, plan.shape, wanted), wanted


def _loop(plan: Plan, path: Path, hours: float, steps: int | None, task: Callable[[], Task]) -> LoopConfig:
    """How a part is trained in so many hours, or steps: as it was decided when these were first asked for."""
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["hours"] == plan.run.hours and steps in (None, known["loop"]["steps"]):
            return from_dict(LoopConfig, known["loop"])
    timed = task()
    items = [timed.dataset[i % len(timed.dataset)] for i in range(plan.run.batch_size)]  # type: ignore[arg-type]
    seconds = seconds_per_step(timed, default_collate(items), loop(plan.run, LEAST_STEPS, 1.0))
    config = loop(plan.run, steps or max(LEAST_STEPS, int(3600 * hours / seconds)), seconds)
    if PartialState().is_main_process:
        write_text(path, json.dumps({"hours": plan.run.hours, "loop": asdict(config)}, indent=1))
    PartialState().wait_for_everyone()
    return from_dict(LoopConfig, json.loads(path.read_text(encoding="utf-8"))["loop"])


def _trained(place: Path, steps: int) -> bool:
    """Whether a part is there that was trained for so many steps."""
    return has_part(place) and json.loads((place / STEPS).read_text())["steps"] >= steps


def _save_part(save: Callable[[], Any], place: Path, steps: int) -> None:
    _save_on_main(save)
    _save_on_main(lambda: write_text(place / STEPS, json.dumps({"steps": steps})))


def _save_on_main(save: Callable[[], Any]) -> None:
    if PartialState().is_main_process:
        save()
    PartialState().wait_for_everyone()
