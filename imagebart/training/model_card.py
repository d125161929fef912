"""What a model of someone's own pictures says of itself: what it knows, its card, and its examples for the page."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from imagebart.conditioning import Conditioner
from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import preset
from imagebart.models.imagebart import About, ImageBART
from imagebart.pictures.store import Store
from imagebart.settings import SamplingSettings
from imagebart.training.follow import read_figures
from imagebart.training.loop import hours_so_far
from imagebart.training.plan import Plan
from imagebart.writing import write_text

SUGGESTED = 12  # phrases of captions that the page offers
NOT_STATED = "not stated"
CREDITS = "credits.csv"
COUNT, EXAMPLES = 4, "examples"  # pictures that were held back, each with a mask


def about_model(plan: Plan, store: Store, name: str, conditioner: Conditioner) -> About:
    """What people are told of the model, and how it is best drawn with."""
    suggestions: dict[str, tuple[str, ...]] = {}
    guided = conditioner.length > 0
    if conditioner.kind == "text":
        phrases = Counter(phrase.strip() for text in store.pictures.texts for phrase in re.split(r"[,.;]", text))
        del phrases[""]
        suggestions = {"picture": tuple(phrase for phrase, _ in phrases.most_common(SUGGESTED) if len(phrase) <= 40)}
    settings = SamplingSettings(guidance=2.0 if guided else 1.0, top_p=0.95, scales=2)
    return About(name, plan.run.knows or f"pictures like those of {Path(plan.run.data).name}", settings, suggestions)


def write_card(plan: Plan, store: Store, model: ImageBART, out: Path, folder: Path) -> None:
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


def _card(plan: Plan, store: Store, model: ImageBART, folder: Path, credited: int) -> Iterator[str]:
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
        figures = read_figures(folder / part)
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


def write_examples(store: Store, folder: Path) -> None:
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
