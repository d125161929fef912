"""From a folder of images to a model: inspect, plan, train the first stage, tokenize, train the denoiser, assemble.

Each part is resumed where it was: what is finished is in files that are there whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from PIL import Image, ImageDraw
from torch import nn

from imagebart.atomic_io import write_text
from imagebart.errors import InputError
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import MASK_SUFFIX, preset
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.stages import Stage
from imagebart.models.vqgan import FirstStage, psnr
from imagebart.settings import SamplingSettings, Settings
from imagebart.text.conditioners import Conditioner, TextConditioner
from imagebart.training.config import DenoiserRun, FirstStageLoss, LoopConfig, ModelRun, StageShape
from imagebart.training.data import AugmentedViews, DatasetReport, ImageStore, inspect_dataset, open_dataset, read_index
from imagebart.training.denoiser import HELD_OUT_MEASURED, TokenDatasetTask, new_denoiser
from imagebart.training.loop import Metrics, Task, Validation, hours_so_far, read_metrics, train
from imagebart.training.plan import (
    MIN_STEPS,
    PLAN,
    Plan,
    loop_config,
    make_plan,
    read_plan,
    resolution_for,
    seconds_per_step,
)
from imagebart.training.progress import progress
from imagebart.training.state import read_json, write_json
from imagebart.training.token_task import (
    TokenDataset,
    add_codebook_embedding,
    conditioner_of,
    encode_store,
    load_text_encoder,
    merge_codebook_embedding,
    token_shards,
    token_tables,
    with_words_of,
)
from imagebart.training.vqgan import FirstStageTask, load_first_stage
from imagebart.weights import EXAMPLES, PART, M, Part, has_part, load_part, save_part

RUN = "run"  # in the model's folder: everything that a resumed run needs
DECODER_GAN_FACTOR = 3.0  # of the discriminator's weights, where the decoder is trained alone
MIN_DENOISER_SHARE = 0.1  # of the hours, whatever was used up before
SHOWN = 12  # reconstructions in a grid
TIMEOUT = timedelta(days=2)  # of processes that wait while the first one inspects and encodes
KINDS = {"text": "captions", "class": "classes", "none": "neither captions nor classes"}
SUGGESTED = 12  # phrases of captions that the page offers
CREDITS = "credits.csv"
EXAMPLE_COUNT = 4  # held-out images, each with a mask

Say = Callable[[str], None]


def dry_run(run: ModelRun, out: Path, say: Say = print) -> None:
    """Inspects the images and prints the plan; writes nothing."""
    first_stage = _trained_first_stage(run)
    resolution, report = _inspect(run, None, first_stage)
    plan = _plan(run, resolution, report.kind, list(report.texts.elements()), out, first_stage)
    for line in (*report.lines(), *plan.lines()):
        say(line)


def train_model(run: ModelRun, out: Path, say: Say = print) -> Path:
    """Trains a model, or resumes that; returns the model's folder.

    Raises InputError for what cannot be used, OSError where the disk is full. Nothing trained is lost.
    """
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # PartialState does not look there by itself
    processes = PartialState(cpu=on_cpu, timeout=TIMEOUT)
    say = say if processes.is_main_process else lambda line: None
    training = _Training(*_prepare(run, out / RUN, say), out / RUN, say)
    first_stage = training.first_stage()
    _on_main(lambda: training.tokenize(first_stage))
    first_stage = training.decoder(first_stage)
    training.denoiser(first_stage)
    _on_main(lambda: training.write_model(first_stage, out))
    return out


def _on_main(work: Callable[[], object]) -> None:
    """Has the first process do something while the others wait."""
    processes = PartialState()
    if processes.is_main_process:
        work()
    processes.wait_for_everyone()


def _prepare(run: ModelRun, folder: Path, say: Say) -> tuple[Plan, ImageStore]:
    """Inspects and plans, unless that is done. A resumed run may become longer; its other settings stay.

    The first process inspects and writes; all of them time steps together.
    """
    images = folder / "pictures"
    before = read_plan(folder) if read_index(images) is not None else None
    PartialState().wait_for_everyone()
    if before is not None:
        _check_same(before, run, folder)
        plan, lines = before.replace(run=run), [f"resuming {folder.parent}, planned for {run.hours:g} hours"]
    else:
        lines, first_stage = [], _trained_first_stage(run)

        def inspect() -> None:
            _, report = _inspect(run, images, first_stage)
            left_out = {"left out": report.unusable, "there twice": report.duplicates}
            write_text(folder / "left-out.json", json.dumps(left_out, indent=1))
            lines.extend(report.lines())

        _on_main(inspect)
        index = read_index(images)
        assert index is not None
        plan = _plan(run, index.resolution, index.kind, list(index.texts), folder, first_stage)
        lines += plan.lines()
    for line in lines:
        say(line)
    _on_main(lambda: write_json(folder / PLAN, plan))
    written = read_plan(folder)  # by the first process, whose timing counts
    assert written is not None
    return written, ImageStore(images)


def _inspect(run: ModelRun, folder: Path | None, first_stage: FirstStage | None) -> tuple[int, DatasetReport]:
    """The resolution to train at, and a report on the images. With a folder, they are stored there."""
    source = open_dataset(run.data)
    resolution = resolution_for(run, first_stage.config if first_stage else None, source)
    with progress("images") as bar:
        task = bar.add_task("inspecting", total=None)
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
    """Raises InputError where a run is resumed with other settings than it was started with."""
    free = ("hours", "steps", "knows", "licence", "credit")
    was, asked = before.run.model_dump(), run.model_dump()
    if run.steps is not None and run.steps.first_stage and before.steps:
        was["first-stage steps"], asked["first-stage steps"] = before.steps, run.steps.first_stage
    for name, value in asked.items():
        if name not in free and value != was[name]:
            raise InputError(
                f"The run in {folder} was started with {name.replace('_', ' ')} {was[name]!r}, not {value!r}; "
                "resume it with that, or give another --out."
            )


class _PartPlan(Settings):
    """How a part is trained where these hours are asked for, and to which step it was."""

    hours: float
    loop: LoopConfig
    trained: int = 0

    def is_done(self, place: Path) -> bool:
        return has_part(place) and self.trained >= self.loop.steps

    def save(self, part: Part[Any], place: Path) -> None:
        """Writes the trained part, and that it is trained."""
        save_part(part, place)
        write_json(place.with_suffix(".json"), self.replace(trained=self.loop.steps))


@dataclass(frozen=True)
class _Training:
    """A run: each part is trained, unless it is there for as many hours or steps as asked for."""

    plan: Plan
    store: ImageStore
    folder: Path
    say: Say

    def first_stage(self) -> FirstStage:
        """Trained, or a copy of the one that was given."""
        plan, place = self.plan, self.folder / "first-stage"
        if not has_part(place):
            first_stage: nn.Module | None = _trained_first_stage(plan.run)
            if first_stage is None:
                self.say("part 1 of 3: the first stage, pixels to tokens and back")
                torch.manual_seed(plan.run.seed)
                model = FirstStage(plan.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                start_step = plan.loss.adversarial.start_step if plan.loss.adversarial else 0
                config = loop_config(plan.run, plan.steps, plan.seconds)
                validation = self._reconstruction(place, start_step)
                first_stage = train(self._first_stage_task(model, plan.loss), config, place, validation)
            _on_main(lambda: save_part(Part(first_stage), place))
        return _load_first_stage_part(place)

    def tokenize(self, first_stage: FirstStage) -> None:
        """Encodes all views of all images, once."""
        place = self.folder / "tokens"
        if not all(path.is_file() for path, _ in token_shards(place, self.store)):
            self.say("part 2 of 3: images to tokens")
            with progress("views") as bar:
                task = bar.add_task("", total=len(self.store.index.names) * self.plan.views)
                encode_store(self.store, first_stage, self.plan.views, place, lambda n: bar.advance(task, n))

    def decoder(self, first_stage: FirstStage) -> FirstStage:
        """The first stage, its decoder trained further alone where hours were added; tokens stay what they were.

        Colours and shapes are settled, textures are not: so the discriminator counts for more.
        """
        plan, place = self.plan, self.folder / "decoder"
        if plan.decoder_hours:
            loss = plan.loss
            if loss.adversarial is not None:
                weights = (loss.adversarial.weight, loss.adversarial.feature_matching_weight)
                weight, matching = (DECODER_GAN_FACTOR * weight for weight in weights)
                later = loss.adversarial.replace(start_step=0, weight=weight, feature_matching_weight=matching)
                loss = loss.replace(adversarial=later)

            def new_task(config: LoopConfig) -> FirstStageTask:
                torch.manual_seed(plan.run.seed)
                model = _load_first_stage_part(self.folder / "first-stage").requires_grad_(True)
                return self._first_stage_task(model, loss, decoder_only=True)

            steps = plan.run.steps.decoder if plan.run.steps else None
            part = self._part_plan(place, plan.decoder_hours, steps, new_task)
            config = part.loop.replace(seed=plan.run.seed + 1)  # other batches than those of the first stage
            if not part.is_done(place):
                self.say(f"the decoder alone, {config.steps:,} steps")
                trained = train(new_task(config), config, place, self._reconstruction(place))
                _on_main(lambda: part.save(Part(trained), place))
        return _load_first_stage_part(place) if has_part(place) else first_stage

    def denoiser(self, first_stage: FirstStage) -> None:
        plan, place, index = self.plan, self.folder / "denoiser", self.store.index
        train_set, held_out = (
            TokenDataset(self.folder / "tokens", self.store, index.numbers(held), plan.views, first_stage.config)
            for held in (False, True)
        )
        conditioner = conditioner_of(index.kind, train_set.texts)

        def new_task(config: LoopConfig) -> TokenDatasetTask:
            torch.manual_seed(plan.run.seed)
            if plan.run.init_from is not None:
                network, cond = load_denoiser_to_finetune(plan.run.init_from, conditioner)
            else:
                network, cond = new_denoiser(first_stage, plan.shape, conditioner), conditioner
            run = DenoiserRun(
                data=str(self.folder),
                first_stage=str(self.folder),
                loop=config,
                shape=plan.shape,
                conditioning=cond.kind,
                color_hint_grid=network.config.color_hint_grid,
            )
            add_codebook_embedding(token_tables(network), first_stage.quantize.codes().detach())
            return TokenDatasetTask(network, cond, first_stage, train_set, held_out, run)

        used = hours_so_far(self.folder / "first-stage") + plan.decoder_hours
        hours = max(plan.run.hours - used, MIN_DENOISER_SHARE * plan.run.hours)
        part = self._part_plan(place, hours, plan.run.steps.denoiser if plan.run.steps else None, new_task)
        if part.is_done(place):
            return
        self.say(f"part 3 of 3: the denoiser, {part.loop.steps:,} steps")
        task = new_task(part.loop)
        trained = train(task, part.loop, place, Validation(place, task.validate, self.say))
        merge_codebook_embedding(trained)
        _on_main(lambda: part.save(Part(trained, task.conditioner), place))

    def write_model(self, first_stage: FirstStage, out: Path) -> None:
        """Assembles the model in its folder, with its card, credits and examples."""
        part = _load_part(self.folder / "denoiser", Denoiser)
        about = about_model(self.plan, self.store, out.resolve().name, part.conditioner)
        model = ImageBART(first_stage.cpu(), part.module, part.conditioner, about)
        model.save_pretrained(out, "float16")
        write_card(self.plan, self.store, model, out, self.folder)
        write_examples(self.store, out)
        self.say(f"{out} is ready: imagebart demo --model {out}")

    def _first_stage_task(self, model: FirstStage, loss: FirstStageLoss, decoder_only: bool = False) -> FirstStageTask:
        """On all views of the images; its grids show held-out images."""
        index, size = self.store.index, self.plan.model.resolution
        views = AugmentedViews(self.store, index.numbers(False), self.plan.views)
        task = FirstStageTask(model, views, torch.ones(size, size), loss, decoder_only)
        task.preview = torch.stack([self.store.view(number, 0) for number in index.numbers(True)[:SHOWN]])
        return task

    def _reconstruction(self, place: Path, settled_after: int = 0) -> Validation:
        images = self.store.images(self.store.index.numbers(True)[:HELD_OUT_MEASURED])
        return Validation(place, lambda model: measure_reconstruction(model, images), self.say, settled_after)

    def _part_plan(
        self, place: Path, hours: float, steps: int | None, new_task: Callable[[LoopConfig], Task]
    ) -> _PartPlan:
        """The plan for so many hours, or steps, as made when these were first asked for."""
        run, path = self.plan.run, place.with_suffix(".json")

        def read() -> _PartPlan:
            return read_json(_PartPlan, path, "delete it to plan this part again")

        known = read() if path.exists() else None
        PartialState().wait_for_everyone()
        if known is not None and known.hours == run.hours and steps in (None, known.loop.steps):
            return known
        timed = loop_config(run, MIN_STEPS, 1.0)
        seconds = seconds_per_step(new_task(timed), timed)
        config = loop_config(run, steps or max(MIN_STEPS, int(3600 * hours / seconds)), seconds)
        planned = _PartPlan(hours=run.hours, loop=config, trained=known.trained if known else 0)
        _on_main(lambda: write_json(path, planned))
        return read()  # the first process's, whose timing counts


@torch.no_grad()
def measure_reconstruction(model: nn.Module, images: torch.Tensor) -> Metrics:
    """Of images [B, 3, H, W]: the root mean square error in levels of 255, PSNR in dB, the share of codes in use."""
    assert isinstance(model, FirstStage)
    device, decoded, used = next(model.parameters()).device, [], set()
    for part in images.split(16):
        tokens = model.encode(part.to(device))
        decoded.append(model.decode(tokens).clamp(-1, 1).float().cpu())
        used |= set(tokens.unique().tolist())
    again = torch.cat(decoded)
    error, codes = 127.5 * float((again - images).square().mean().sqrt()), len(used) / model.config.vocab_size
    return {"error": error, "psnr": float(psnr(again, images).mean()), "codes": codes}


def _load_part(place: Path, kind: type[M]) -> Part[M]:
    try:
        return load_part(place, kind)
    except ValueError as error:
        raise InputError(f"{error}; delete {place / PART} to write it again from the last state.") from error


def _load_first_stage_part(folder: Path) -> FirstStage:
    first_stage = _load_part(folder, FirstStage).module
    return first_stage.to(PartialState().device, memory_format=torch.channels_last)  # type: ignore[call-overload]


# What a run is initialised from: the first stage of a finished model, or all of it.


def _trained_first_stage(run: ModelRun) -> FirstStage | None:
    """The first stage that was given, None where one is to be trained."""
    return None if run.trained_first_stage is None else load_first_stage(Path(run.trained_first_stage))


def load_denoiser_to_finetune(folder: str, wanted: Conditioner) -> tuple[Denoiser, Conditioner]:
    """A model's denoiser, to be trained further, and a conditioner that knows the words of `wanted`.

    It keeps what it learned of words that both know. Raises InputError where it was trained with other conditioning.
    """
    try:
        model = ImageBART.from_pretrained(folder)
    except ValueError as error:
        raise InputError(f"The model in {folder} cannot be trained further: {error}") from error
    network, known = model.denoiser, model.conditioner
    if network is None:
        raise InputError(
            f"The model in {folder} has stages, and one with a denoiser is expected; give it as --first-stage."
        )
    untrained = "give it as --first-stage, then the denoiser starts untrained."
    if known.kind != wanted.kind:
        was = f"The model in {folder} was trained with {KINDS[known.kind]}"
        raise InputError(f"{was}, the images have {KINDS[wanted.kind]}; {untrained}")
    if isinstance(known, TextConditioner) and isinstance(wanted, TextConditioner) and network.text is not None:
        if wanted.length > known.length:
            raise InputError(
                f"The captions take up to {wanted.length} tokens, and the model in {folder} reads {known.length}; "
                f"shorten them, or {untrained}"
            )
        conditioner = TextConditioner(tokens=wanted.tokens, words=wanted.words, length=known.length)
        network.set_text_encoder(with_words_of(network.text, known, conditioner))
        return network.requires_grad_(True), conditioner
    if known != wanted:
        kind = KINDS[known.kind]
        raise InputError(f"The model in {folder} was trained with other {kind} than the images have; {untrained}")
    return network.requires_grad_(True), known


# The model's folder beside its weights: what it shows, its card, and examples for the page.


def about_model(plan: Plan, store: ImageStore, name: str, conditioner: Conditioner) -> About:
    """The model's name, what it shows, its default settings, and frequent phrases as suggestions."""
    suggestions: dict[str, tuple[str, ...]] = {}
    if conditioner.kind == "text":
        phrases = Counter(phrase.strip() for text in store.index.texts for phrase in re.split(r"[,.;]", text))
        del phrases[""]
        suggestions = {"image": tuple(phrase for phrase, _ in phrases.most_common(SUGGESTED) if len(phrase) <= 40)}
    settings = SamplingSettings(guidance=2.0 if conditioner.length > 0 else 1.0, top_p=0.95, scales=2)
    return About(
        name=name,
        knows=plan.run.knows or f"images like those of {Path(plan.run.data).name}",
        sampling=settings,
        suggestions=suggestions,
    )


def write_card(plan: Plan, store: ImageStore, model: ImageBART, out: Path, folder: Path) -> None:
    """Writes README.md, and credits.csv where the data name the images' authors."""
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
    held_out = sum(index.held_out)
    yield f"- {len(index.names) - held_out:,} images {texts} to train on, {held_out:,} held out."
    yield f"- Licence of the images: {plan.run.licence or 'not stated'}."
    if plan.run.credit:
        yield f"- {plan.run.credit}"
    if credited:
        yield f"- The authors of {credited:,} images are named in [{CREDITS}]({CREDITS})."
    yield "\n## Training\n"
    for name, part in (("first stage", "first-stage"), ("its decoder alone", "decoder"), ("denoiser", "denoiser")):
        metrics = read_metrics(folder / part)
        if not metrics:
            if part != "decoder":
                yield f"- {name}: initialised from {Path(plan.run.trained_first_stage or '').name}."
            continue
        more = f" more, from {Path(plan.run.init_from).name}" if plan.run.init_from else ""
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in metrics[-1].items() if key not in ("step", "hours"))
        yield (
            f"- {name}: {hours_so_far(folder / part):.2f} hours, {metrics[-1]['step']:,.0f} steps{more}; "
            f"on held-out images: {numbers}."
        )
    yield (
        "\nerror: of reconstructions, in levels of 255; psnr in dB; codes: share in use; loss: nats a token, `half` "
        "with the upper half known, `whole` with nothing known.\n"
    )
    yield "## Limits\n"
    yield f"- It was trained on {model.about.knows} and nothing else; other images can be edited, but only into these."
    if index.kind == "text":
        yield "- It knows the words of its captions only; others are named and left out."
    yield "- What the training images show wrongly, or seldom, it generates wrongly, or seldom."
    yield "- Details of a few pixels are lost in the tokens."


def write_examples(store: ImageStore, folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and, for captions, NAME.txt of some held-out images.

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
        title = re.sub(r"\W+", "-", texts[number].lower())[:40].strip("-") or "image"
        name = folder / EXAMPLES / f"{place}-{title}"
        save_image(image, name.with_suffix(".png"))
        save_image(mask, name.with_suffix(MASK_SUFFIX))
        if store.index.kind == "text":
            write_text(name.with_suffix(".txt"), texts[number])


# A model assembled from the trained parts in run folders, and taken apart into them.


def assemble(first_stage: Path, networks: Path | Sequence[Path], about: About, text: Path | None = None) -> ImageBART:
    """The model made of the parts in these run folders.

    networks: a denoiser, or the stages of a published kind, stage 1 first. text: a text encoder that replaces the
    networks' own. Raises ValueError where parts were trained for different schedules or conditioners.
    """
    if isinstance(networks, Path):
        parts: list[Part] = [load_part(networks, Denoiser)]
    else:
        parts = [load_part(folder, Stage) for folder in networks]
        for folder, part in zip(networks, parts, strict=True):
            if (part.schedule, part.conditioner) != (parts[0].schedule, parts[0].conditioner):
                raise ValueError(f"{folder} was trained with another schedule or conditioner than {networks[0]}")
    conditioner, modules = parts[0].conditioner, [part.module for part in parts]
    if text is not None:
        encoder, conditioner = load_text_encoder(text)
        for module in modules:
            module.set_text_encoder(encoder)
    network = modules[0] if isinstance(networks, Path) else modules
    return ImageBART(load_part(first_stage, FirstStage).module, network, conditioner, about, parts[0].schedule)


def take_apart(model: ImageBART, folder: Path) -> list[Path]:
    """Writes a model's parts to run folders, to train further: first-stage, captions, and denoiser or stage1, ..."""
    parts: dict[str, Part] = {"first-stage": Part(model.first_stage)}
    if model.text is not None:
        parts["captions"] = Part(model.text, model.conditioner)
    if model.denoiser is not None:
        parts["denoiser"] = Part(model.denoiser, model.conditioner)
    for t, stage in enumerate(model.stages, 1):
        parts[f"stage{t}"] = Part(stage, model.conditioner, model.schedule)
    for name, part in parts.items():
        save_part(part, folder / name)
    return [folder / name for name in parts]
