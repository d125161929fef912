"""How good the model of things is: edits, removals, prompts, reconstructions and places found by words.

    python -m recipes.things evaluate table --samples 400 --seed 771 --out figures.json
    python -m recipes.things evaluate grids --out FOLDER

The reader, trained on scenes alone, says what images show; what it gets wrong on the renders themselves is measured,
too. A case is a scene by number with a seed of its own, so that none was seen in training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from imagebart.errors import InputError
from imagebart.evaluation.folder import two_sample_test
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import Measure, mean_of, measure, median_of, share_of
from imagebart.imaging.blending import blend
from imagebart.imaging.crop import Box
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import normalize, to_images, to_tensor
from imagebart.models.vqgan import psnr
from imagebart.pipeline import Pipeline
from imagebart.training.perceptual import PerceptualLoss
from imagebart.worlds.things import Found, ThingScorer
from recipes import generator
from recipes.things.artwork import CELL, GRID, HUES, NOUNS, SIZE, Placed, Scene, render
from recipes.things.reader import COLORS
from recipes.things.scenes import COLORED, HELD_OUT, Caption, SceneOptions, describe, describe_things, sample

TASKS = {"edit": 1, "remove": 2, "prompt": 3, "scene": 4, "pairs": 5}  # numbers of their series
CASE_SIDES = (4, 6, 8)  # of boxes that are edited; 12 leaves no space for others
FAR = 24  # levels in a channel from which a pixel differs from the ground
SPECK = 4  # pixels a side of a square that differs from the ground
GONE = 8  # levels: the ground's mean color in a mask from which a thing was removed


@dataclass(frozen=True)
class Study:
    """A model, what reads its images, how many images a measure is of, and the seed of cases and samples."""

    sampler: ImageSampler
    scorer: ThingScorer
    samples: int = 400
    seed: int = 0

    def series(self, task: str) -> int:
        """The seed of the scenes of a task."""
        return 1_000_000 * (self.seed + 1) + TASKS[task]

    def scenes(self, task: str, count: int) -> list[Scene]:
        return [sample(i, self.series(task)) for i in range(count)]

    def draw(self, scenes: Sequence[Scene], boxes: Sequence[Box], prompts: Sequence[str], seed: int) -> Tensor:
        """Scenes with a box of each regenerated, one by one: masks at different places share no computation."""
        images, masks = rendered(scenes), np.stack([mask_of(box) for box in boxes])
        one = replace(self.sampler, batch=1)
        return one.edit(images, masks, prompts, seed)

    def generate(self, prompts: Sequence[str]) -> Tensor:
        """Whole images, as the page draws them."""
        pipe, settings = Pipeline(self.sampler.model, scorer=self.scorer), self.sampler.settings
        results = []
        for number, prompt in enumerate(prompts):
            *_, last = pipe.generate(prompt, seed=self.seed + number, settings=settings)
            results.append(to_tensor(last.image))
        return torch.cat(results)


def rendered(scenes: Sequence[Scene]) -> Tensor:
    """Scenes as images, float [B, 3, SIZE, SIZE] in [-1, 1]."""
    return normalize(torch.from_numpy(np.stack([render(scene) for scene in scenes])).permute(0, 3, 1, 2))


def mask_of(box: Box) -> np.ndarray:
    """A box in pixels: bool [SIZE, SIZE]."""
    mask = np.zeros((GRID, GRID), bool)
    mask[box.cells] = True
    return mask.repeat(CELL, 0).repeat(CELL, 1)


@dataclass(frozen=True)
class EditCase:
    """A scene without a thing, the thing that is asked for, and the words."""

    before: Scene
    thing: Placed
    said: Caption

    @property
    def box(self) -> Box:
        return self.thing.box

    @property
    def after(self) -> Scene:
        """The scene with the thing."""
        return Scene(self.before.ground, (*self.before.things, self.thing))


def edit_case(number: int, series: int) -> EditCase:
    """The case of a number: a place of 4, 6 or 8 tokens a side is free, beside up to three things."""
    random = generator(number, series, 0)
    side = CASE_SIDES[number % len(CASE_SIDES)]
    scene = sample(number, series, SceneOptions(int(random.integers(1, 5)), first=side))
    thing = next(thing for thing in scene.things if thing.side == side)
    others = tuple(other for other in scene.things if other != thing)
    return EditCase(Scene(scene.ground, others), thing, describe_things([thing], random))


def noun_in(scorer: ThingScorer, image: Tensor, box: Box) -> tuple[int, int]:
    """What a box of an image [3, H, W] shows: the noun's number (that after the last: nothing) and the color's."""
    nouns, colors = scorer.read(crop(image, box))
    return int(nouns.argmax(1)), int(colors.argmax(1))


def readings(study: Study) -> Iterator[Measure]:
    """The reader on renders, and on their reconstructions."""
    scenes = [scene for scene in study.scenes("scene", 2 * study.samples) if scene.things][: study.samples]
    images = rendered(scenes)
    decoded = study.sampler.reconstruct(images)
    found: dict[str, list[int]] = {"renders": [], "reconstructions": []}
    asked = [len(scene.things) for scene in scenes]
    for name, shown in (("renders", images), ("reconstructions", decoded)):
        for image, scene in zip(shown, scenes, strict=True):
            found[name].append(sum(noun_in(study.scorer, image, t.box)[0] == t.noun for t in scene.things))
        yield measure(f"things recognized in {name}", share_of(found[name], asked), len(scenes), "%", "≥ 98 %")
    yield measure("reconstruction: PSNR", mean_of(psnr(images, decoded).tolist()), len(scenes), "dB")
    features = PerceptualLoss()
    with torch.no_grad():
        apart = [features(one[None], other[None]).item() for one, other in zip(images, decoded, strict=True)]
    yield measure("reconstruction: distance by features of EfficientNet-lite0", mean_of(apart), len(scenes))


def edits(study: Study) -> Iterator[Measure]:
    """Edits of a free place by the name of a thing."""
    cases = [edit_case(i, study.series("edit")) for i in range(study.samples)]
    images = study.draw([c.before for c in cases], [c.box for c in cases], [c.said.text for c in cases], study.seed)
    right, colors, alone, stayed, filled = [], [], [], [], []
    by_noun: dict[int, list[bool]] = {}
    before = rendered([case.before for case in cases])
    for case, image, empty in zip(cases, images, before, strict=True):
        noun, color = noun_in(study.scorer, image, case.box)
        right.append(noun == case.thing.noun)
        by_noun.setdefault(case.thing.noun, []).append(right[-1])
        if case.said.mentions[0].color:
            colors.append(color == COLORS.index(case.said.mentions[0].color))
        inside = [found for found in study.scorer.things(image) if found.box.overlap(case.box) > found.box.side**2 / 2]
        alone.append(all(found.noun == case.thing.noun for found in inside) and len(inside) <= 1)
        outside = torch.from_numpy(~mask_of(case.box))
        stayed.append(torch.equal(image[:, outside], empty[:, outside]))
        filled.append(fill(image, empty, case.box))
    total = len(cases)
    yield measure("edit: the thing asked for is in the mask", share_of(right), total, "%", "≥ 95 %")
    if colors:
        yield measure("edit: in the color asked for", share_of(colors), len(colors), "%")
    yield measure("edit: nothing else in the mask", share_of(alone), total, "%", "≥ 95 %")
    yield measure("edit: no pixel changed outside", share_of(stayed), total, "%", "≥ 99.5 %")
    yield measure("edit: box of the thing over the mask, median IoU", median_of(filled), total, goal="≥ 0.6")
    renders = rendered([case.after for case in cases])
    whole = study.sampler.reconstruct(renders)
    shown = [
        to_tensor(blend(new, old, mask_of(case.box)))[0]
        for new, old, case in zip(to_images(whole), to_images(before), cases, strict=True)
    ]
    real, made = (torch.cat([boxed(image, case.box) for image, case in zip(group, cases, strict=True)])
                  for group in (shown, images))  # fmt: skip
    for name, group in (("edit", images), ("reconstruction", torch.stack(shown))):
        triples = zip(group, renders, cases, strict=True)
        ratios = [psnr(crop(image, case.box), crop(render, case.box)).item() for image, render, case in triples]
        yield measure(f"{name}: PSNR in the mask, beside the render", mean_of(ratios), total, "dB")
    told = two_sample_test(real, made, seed=study.seed)
    yield measure("edit: told from a reconstruction by a network", told, total, "%", "≤ 65 %")
    for side in CASE_SIDES:
        own = [r for r, case in zip(right, cases, strict=True) if case.thing.side == side]
        yield measure(f"{side} tokens a side", share_of(own), len(own), "%", group="edits by size")
    for noun, answers in sorted(by_noun.items()):
        yield measure(NOUNS[noun].name, share_of(answers), len(answers), "%", group="edits by noun")


def crop(image: Tensor, box: Box) -> Tensor:
    """What a box of an image [3, H, W] shows: [1, 3, S, S]."""
    y, x = (slice(start * CELL, (start + box.side) * CELL) for start in (box.top, box.left))
    return image[None, :, y, x]


def boxed(image: Tensor, box: Box) -> Tensor:
    """The same as 64 x 64 pixels: [1, 3, 64, 64]."""
    return F.interpolate(crop(image, box), (64, 64), mode="bicubic", antialias=True)


def fill(image: Tensor, ground: Tensor, box: Box) -> float:
    """The box of what differs from the ground in a mask, over the mask: images [3, H, W] -> 0 to 1."""
    far = ((image - ground).abs().amax(0) * 127.5 > FAR).numpy() & mask_of(box)
    if not far.any():
        return 0.0
    rows, columns = np.flatnonzero(far.any(1)), np.flatnonzero(far.any(0))
    return float((rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])) / (box.side * CELL) ** 2


def pair_case(number: int, series: int, pair: tuple[int, str] | tuple[int, int]) -> EditCase:
    """A thing of a noun and a color, or one beside another noun's of its size, on a ground that the number gives."""
    random, side = generator(number, series, 2), CASE_SIDES[number % len(CASE_SIDES)]
    ground = sample(number, series, SceneOptions(things=0)).ground
    noun, other = pair
    top, left = int(random.integers(GRID - side + 1)), int(random.integers(GRID - 2 * side + 1))
    at, beside = (left, left + side) if random.random() < 0.5 else (left + side, left)
    thing = Placed(noun, other if isinstance(other, str) else "", top, at, side)
    others = () if isinstance(other, str) else (Placed(other, "", top, beside, side),)
    return EditCase(Scene(ground, others), thing, describe_things([thing], random))


def held_out_pairs(study: Study) -> Iterator[Measure]:
    """Edits of pairs that `HELD_OUT` has, and of as many others: for a model that was trained without the first.

    A noun in a color: both are read in the mask. A noun beside a noun: it is read in the mask, the other beside it.
    """
    random = generator(0, study.series("pairs"), 0)
    colors = [(noun, color) for noun in COLORED for color in HUES if color != NOUNS[noun].color]
    neighbors = [(int(a), int(b)) for a, b in random.integers(len(NOUNS), size=(study.samples, 2)) if a != b]
    apart = [(a, b) for pair in sorted(map(sorted, HELD_OUT.neighbors)) for a, b in (pair, pair[::-1])]
    kinds: dict[str, list[tuple[int, str]] | list[tuple[int, int]]] = {
        "noun and color, held out": sorted(HELD_OUT.colors),
        "noun and color, others": [pair for pair in colors if pair not in HELD_OUT.colors],
        "noun beside noun, held out": apart,
        "noun beside noun, others": [pair for pair in neighbors if frozenset(pair) not in HELD_OUT.neighbors],
    }
    goals = {"noun and color, held out": "≥ 80 %", "noun beside noun, held out": "≥ 90 %"}
    for name, pairs in kinds.items():
        cases = [pair_case(i, study.series("pairs"), pairs[i % len(pairs)]) for i in range(study.samples)]
        images = study.draw([c.before for c in cases], [c.box for c in cases], [c.said.text for c in cases], study.seed)
        right = []
        for case, image in zip(cases, images, strict=True):
            noun, color = noun_in(study.scorer, image, case.box)
            right.append(noun == case.thing.noun and case.thing.color in ("", COLORS[color]))
        yield measure(name, share_of(right), len(cases), "%", goals.get(name, ""))


def removals(study: Study) -> Iterator[Measure]:
    """Boxes of things regenerated without words."""
    cases = [edit_case(i, study.series("remove")) for i in range(study.samples)]
    empty = rendered([case.before for case in cases])
    boxes = [case.box for case in cases]
    images = study.draw([case.after for case in cases], boxes, [""] * len(cases), study.seed)
    gone, clean = [], []
    for box, image, ground in zip(boxes, images, empty, strict=True):
        error = (crop(image, box) - crop(ground, box)) * 127.5
        color = error.mean((0, 2, 3)).abs().max().item()
        gone.append(noun_in(study.scorer, image, box)[0] == len(NOUNS) and color <= GONE)
        far = (error.abs().amax(1, keepdim=True) > FAR).float()
        clean.append(not (-F.max_pool2d(-far, SPECK, 1)).any())
    yield measure("remove: the thing is gone, the ground goes on", share_of(gone), len(cases), "%", "≥ 97 %")
    yield measure("remove: no speck is left", share_of(clean), len(cases), "%")


def prompts(study: Study) -> Iterator[Measure]:
    """Whole images from captions; then from such captions alone as name a color or a place, of which few do.

    The same questions to the scenes' renders say what the reader misses.
    """
    named = prompt_cases(study, ("all things named", "right number"), 0.0)
    yield from _ask(study, named, {"all things named": "≥ 92 %", "right number": "≥ 85 %"})
    for question, goal in (("right color", "≥ 92 %"), ("right place", "≥ 85 %")):
        yield from _ask(study, prompt_cases(study, (question,), 0.3), {question: goal})


def prompt_cases(study: Study, questions: Sequence[str], colored: float) -> list[tuple[Scene, Caption]]:
    """Scenes and captions of which these questions can be asked; colored: see `sample`."""
    series = study.series("prompt")
    scenes = ((number, sample(number, series, SceneOptions(colored=colored))) for number in count())
    cases = ((scene, describe(scene, generator(number, series, 1))) for number, scene in scenes if scene.things)
    return list(islice((case for case in cases if set(questions) <= answered([], case[1]).keys()), study.samples))


def _ask(study: Study, cases: Sequence[tuple[Scene, Caption]], goals: Mapping[str, str]) -> Iterator[Measure]:
    captions = [said for _, said in cases]
    for name, images in (
        ("renders", rendered([scene for scene, _ in cases])),
        ("generate", study.generate([said.text for said in captions])),
    ):
        answers = [answered(study.scorer.things(image), one) for image, one in zip(images, captions, strict=True)]
        for question, goal in goals.items():
            own = [answer[question] for answer in answers]
            yield measure(f"{name}: {question}", share_of(own), len(own), "%", goal if name == "generate" else "")


def answered(things: Sequence[Found], said: Caption) -> dict[str, bool]:
    """What an image with these things shows of a caption."""
    count = Counter(found.noun for found in things)
    answers = {
        "all things named": all(count[m.noun] > 0 for m in said.mentions),
        "right number": all(
            count[m.noun] == sum(o.count for o in said.mentions if o.noun == m.noun) for m in said.mentions
        )
        and count.total() == sum(m.count for m in said.mentions),
    }
    colored = [m for m in said.mentions if m.color]
    if colored:
        shown = {(found.noun, COLORS[found.color]) for found in things}
        answers["right color"] = all((m.noun, m.color) in shown for m in colored)
    if said.place:
        pair = [[f.box for f in things if f.noun == m.noun] for m in said.mentions]
        answers["right place"] = all(pair) and any(lies(a, b, said.place) for a in pair[0] for b in pair[-1] if a != b)
    return answers


def lies(one: Box, other: Box, place: str) -> bool:
    """Whether a box lies beside another as a key of `recipes.things.scenes.PLACES` says."""
    down, across = (a + one.side / 2 - b - other.side / 2 for a, b in ((one.top, other.top), (one.left, other.left)))
    return {"left": across < 0, "right": across > 0, "above": down < 0, "below": down > 0}[place]


def places_by_words(study: Study) -> Iterator[Measure]:
    """Where things are that scenes show, found by their names."""
    scenes = [scene for scene in study.scenes("scene", 2 * study.samples) if scene.things][: study.samples]
    pipe, shares = Pipeline(study.sampler.model, scorer=study.scorer), []
    for i, scene in enumerate(scenes):
        thing = scene.things[i % len(scene.things)]
        mask = np.zeros((SIZE, SIZE), bool)
        for other in scene.things:
            if other.noun == thing.noun:
                mask |= mask_of(other.box)
        try:
            found = np.asarray(pipe.suggest_mask(Image.fromarray(render(scene)), NOUNS[thing.noun].name)) > 0
        except InputError:
            found = ~mask
        shares.append(float((found & mask).sum() / (found | mask).sum()))
    yield measure("found by words: IoU with the things' boxes, median", median_of(shares), len(shares), goal="≥ 0.7")
    right = [share > 0.5 for share in shares]
    yield measure("found by words: at the right place", share_of(right), len(right), "%")


def edit_grid(study: Study, count: int = 40) -> Image.Image:
    """Edits, each as the scene with the mask in magenta beside the result, over the words; five a row."""
    cases = [edit_case(i, study.series("edit")) for i in range(count)]
    images = study.draw([c.before for c in cases], [c.box for c in cases], [c.said.text for c in cases], study.seed)
    return _pairs([c.before for c in cases], [c.box for c in cases], images, [c.said.text for c in cases])


def removal_grid(study: Study, count: int = 40) -> Image.Image:
    """Removals, as `edit_grid` shows edits."""
    cases = [edit_case(i, study.series("remove")) for i in range(count)]
    scenes, boxes = [case.after for case in cases], [case.box for case in cases]
    images = study.draw(scenes, boxes, [""] * count, study.seed)
    return _pairs(scenes, boxes, images, [f"without: {NOUNS[case.thing.noun].name}" for case in cases])


def prompt_grid(study: Study, count: int = 40) -> Image.Image:
    """Whole images over their captions, eight a row."""
    series = study.series("prompt")
    texts = [describe(scene, generator(i, series, 1)).text for i, scene in enumerate(study.scenes("prompt", count))]
    images = to_images(study.generate(texts))
    rows = [images[i : i + 8] for i in range(0, count, 8)]
    return sheet(rows, 160, captions=[texts[i : i + 8] for i in range(0, count, 8)])


def noun_sheet(study: Study) -> Image.Image:
    """All nouns drawn into the middle of the same empty scene, twelve a row."""
    scene = Scene(sample(0, study.series("edit"), SceneOptions(things=0)).ground)
    box, names = Box(4, 4, 8), [noun.name for noun in NOUNS]
    images = to_images(study.draw([scene] * len(names), [box] * len(names), names, study.seed))
    rows = [images[i : i + 12] for i in range(0, len(names), 12)]
    return sheet(rows, 128, captions=[names[i : i + 12] for i in range(0, len(names), 12)])


def _pairs(scenes: Sequence[Scene], boxes: Sequence[Box], images: Tensor, texts: Sequence[str]) -> Image.Image:
    shown = []
    for scene, box in zip(scenes, boxes, strict=True):
        image = Image.fromarray(render(scene))
        tinted = Image.blend(image, Image.new("RGB", image.size, "magenta"), 0.5)
        shown.append(Image.composite(tinted, image, Image.fromarray((mask_of(box) * 255).astype(np.uint8))))
    results = to_images(images)
    groups = [list(zip(shown[i : i + 5], results[i : i + 5], strict=True)) for i in range(0, len(shown), 5)]
    rows = [[image for pair in group for image in pair] for group in groups]
    return sheet(rows, 128, captions=[texts[i : i + 5] for i in range(0, len(texts), 5)])
