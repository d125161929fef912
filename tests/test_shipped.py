"""The models in checkpoints/ follow prompts, keep what they should, and know what they do not know."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tiny_models import rendered

from imagebart import Pipeline, SamplingSettings
from imagebart.imaging import masks
from imagebart.imaging.files import to_tensor
from imagebart.pipeline import Edit
from imagebart.sampling.sampler import correct
from imagebart.sampling.steps import ChainEvent
from imagebart.ui.models import find_examples
from imagebart.worlds.attribute_classifier import AvatarScorer
from imagebart.worlds.avatars import PLAIN
from imagebart.worlds.things import ThingScorer
from recipes.avatars.dataset import avatar_item

ROOT = Path(__file__).parent.parent
AVATARS, THINGS = ROOT / "checkpoints" / "avatars", ROOT / "checkpoints" / "things"
pytestmark = [pytest.mark.shipped, pytest.mark.slow]


def example(number: int) -> Image.Image:
    path = next((AVATARS / "examples").glob(f"{number}-*.mask.png"))
    return Image.open(path.with_name(path.name.replace(".mask", ""))).convert("RGB")


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(AVATARS)


def test_the_corrector_finds_wrong_tokens_and_mends_them(pipe: Pipeline) -> None:
    """Of rendered avatars, five of whose tokens were replaced at random."""
    model, seed = pipe.model, torch.Generator().manual_seed(0)
    items = [avatar_item(6 * 10**8 + i, pipe.image_size) for i in range(8)]
    x0 = model.first_stage.encode(torch.stack([item["image"] for item in items]) / 127.5 - 1)
    wrong = torch.zeros(x0.shape, dtype=torch.bool)
    for row in wrong:
        row[torch.randperm(x0.shape[1], generator=seed)[:5]] = True
    damaged = torch.where(wrong, torch.randint(model.vocab_size, x0.shape, generator=seed), x0)
    settings = pipe.defaults.replace(corrector_steps=2)
    cond = model.conditioner.encode([item["text"] for item in items]).tokens
    state = model.sampler.prepare(len(x0), settings, cond, seed=1)
    end = ChainEvent(tokens=damaged, stage=1, stages=1, resample_index=0, resamples=1)
    *_, last = correct(state, end, model.sampler.packed, settings)
    before, damage, after = (model.first_stage.decode(x) for x in (x0, damaged, last.tokens))
    assert (last.tokens != damaged)[wrong].float().mean() > 0.9
    assert (last.tokens != damaged)[~wrong].float().mean() < 0.05
    assert (after - before).square().mean() < 0.25 * (damage - before).square().mean()


def test_sunglasses_darken_the_eyes_and_change_nothing_else(pipe: Pipeline) -> None:
    """Paired by seed against "no glasses": the dark share of the painted pixels grows on average."""
    upload = example(3)
    mask = Image.new("L", upload.size)
    mask.paste(255, (57, 71, 199, 132))  # the eyes
    inside, dark = np.asarray(mask) > 0, {}
    for prompt in ("sunglasses", "no glasses"):
        *_, last = pipe.edit(upload, mask, prompt, seed=10, variants=3)
        results, outside = np.stack([np.asarray(image, int) for image in last.images]), np.asarray(last.mask) == 0
        assert (results[:, outside] == np.asarray(upload)[outside]).all()
        dark[prompt] = (results[:, inside].sum(-1) < 200).mean()
    assert dark["sunglasses"] > dark["no glasses"] + 0.03


def test_avatars_are_in_domain_and_what_is_not_one_is_said_to_be_out_of_it(pipe: Pipeline) -> None:
    x, y = np.meshgrid(np.arange(450), np.linspace(0, 1, 300))
    scene = np.array([120, 180, 240]) + np.array([110, 60, 10]) * y[..., None]  # a sky, and hills
    for top, color in ((0.5, (110, 130, 150)), (0.65, (60, 120, 60)), (0.8, (90, 160, 70))):
        scene[y > top + 0.06 * np.sin(x / (90 * top)) + 0.03 * np.sin(x / 13)] = color
    landscape = Image.fromarray(scene.astype(np.uint8))
    with_avatar = landscape.copy()
    with_avatar.paste(example(1).resize((140, 140)), (150, 150))
    for image in (landscape, with_avatar):
        assert any("avatars only" in note for note in pipe.domain_notes(image))
    for number in range(1, 9):
        assert not pipe.domain_notes(example(number)), number
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    fast = pipe.defaults.replace(scales=1, corrector_steps=0)
    for image, odd in ((example(1).resize((128, 128)), False), (noise, True)):
        *_, last = pipe.edit(image, masks.preset("center", (128, 128)), "a hat", seed=0, settings=fast)
        assert any("avatars only" in note for note in last.notes) == odd


def test_the_scorer_puts_first_what_a_prompt_asks_for(pipe: Pipeline) -> None:
    assert isinstance(pipe.scorer, AvatarScorer)
    looks = ("none", "glasses", "sunglasses", "eyepatch")
    images = rendered([replace(PLAIN, accessory=look) for look in looks], pipe.image_size)
    assert pipe.scorer.score(images, "an eyepatch").argmax() == looks.index("eyepatch")
    assert pipe.scorer.score(images, "no glasses").argmax() in (0, 3)


@pytest.mark.parametrize(("folder", "prompts"), [(AVATARS, 8), (THINGS, 7)], ids=["avatars", "things"])
def test_suggestions_and_examples_are_of_words_that_the_model_knows(folder: Path, prompts: int) -> None:
    model, examples = Pipeline.from_pretrained(folder), find_examples(folder / "examples")
    suggested = [words for suggestions in model.suggestions.values() for words in suggestions]
    shown = [example.prompt for example in examples if example.prompt]
    assert len(suggested) > 20 and len(shown) == prompts
    assert not any(model.unknown_words(words) for words in (*suggested, *shown))
    assert all(example.mask.size == example.image.size and example.mask.getbbox() for example in examples)


LARGE = """
import re, sys
from pathlib import Path
from imagebart import Pipeline
from imagebart.imaging import masks
from imagebart.imaging.files import write_png
pipe = Pipeline.from_pretrained(sys.argv[1])
folder, size = Path(sys.argv[2]), (6250, 4000)
for area, feather in (("upper half", 0), ("border", 1000)):
    for event in pipe.edit(folder / "in.png", masks.preset(area, size), "a red hat", seed=0, feather=feather):
        assert event.image.size == size
    write_png(event.image, folder / "out.png", event.recipe)
    del event
assert not {"torch._dynamo", "sympy"} & sys.modules.keys(), "PyTorch's compiler was imported, 80 MB"
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.release
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux keeps account of memory there")
def test_edits_of_the_largest_images_take_little_over_a_gigabyte_with_all_that_is_loaded(tmp_path: Path) -> None:
    """One after another, of an image with transparency, with the widest feather, each moment looked at."""
    Image.new("RGBA", (6250, 4000), (9, 8, 7, 100)).save(tmp_path / "in.png")
    command = [sys.executable, "-c", LARGE, str(AVATARS), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 1.2e9


# Things: the detector beside the model looks.

Edges = tuple[int, int, int, int]  # left, top, right and bottom, the last two exclusive
WHITE = Image.new("RGB", (256, 256), "white")


@pytest.fixture(scope="module")
def things() -> Pipeline:
    return Pipeline.from_pretrained(THINGS)


@pytest.fixture(scope="module")
def fast(things: Pipeline) -> SamplingSettings:
    return things.defaults.replace(scales=1, corrector_steps=0)


def painted(box: Edges, size: tuple[int, int] = (256, 256)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def nouns(things: Pipeline, image: Image.Image) -> list[str]:
    """Of what an image shows."""
    assert isinstance(things.scorer, ThingScorer)
    return [things.scorer.names.nouns[found.noun][0] for found in things.scorer.things(to_tensor(image)[0])]


@pytest.mark.release
def test_what_is_asked_for_is_drawn_where_it_was_painted_and_goes_again(things: Pipeline) -> None:
    """Twenty nouns, places and grounds by chance: 17 or more are right. Removed again, the ground goes on."""
    assert isinstance(things.scorer, ThingScorer)
    random, names = np.random.default_rng(31), things.scorer.names
    right, gone = 0, 0
    for seed, noun in enumerate(random.permutation(len(names.nouns))[:20].tolist()):
        ground = names.grounds[str(random.choice(list(names.grounds)))]
        side = int(random.choice([6, 8]))  # of 16 patches
        top, left = (16 * int(random.integers(16 - side + 1)) for _ in range(2))
        mask = painted((left, top, left + 16 * side, top + 16 * side))
        *_, drawn = things.edit(Image.new("RGB", (256, 256), ground), mask, names.nouns[noun][0], seed=seed)
        inside = np.asarray(mask) > 0
        assert (np.asarray(drawn.image)[~inside] == ground).all()
        right += nouns(things, drawn.image) == [names.nouns[noun][0]]
        if seed < 6:
            *_, empty = things.edit(drawn.image, mask, "", seed=seed)
            far = np.abs(np.asarray(empty.image).astype(int)[inside].mean(0) - ground).max()
            gone += not nouns(things, empty.image) and far <= 8
    assert right >= 17 and gone >= 5


@pytest.mark.release
def test_every_noun_is_drawn_with_the_tokens_of_its_drawing(things: Pipeline) -> None:
    assert isinstance(things.scorer, ThingScorer)
    drawings = load_file(ROOT / "recipes" / "things" / "data" / "tokens.safetensors")["tokens"]
    words = [things.scorer.phrase(noun, None) for noun in range(len(things.scorer.names.nouns))]
    tokens = things.model.conditioner.encode(words).tokens
    drawn = torch.cat([things.model.sample(len(c), c, seed=0, top_p=0.2, scales=1) for c in tokens.split(31)])
    right = (drawn == drawings).float().mean(1)
    assert right.min() > 0.8, [words[noun] for noun in (right <= 0.8).nonzero()]


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((256, 256), (0, 0, 70, 80)),  # a corner
        ((500, 120), (401, 13, 495, 111)),
        ((900, 700), (333, 251, 681, 620)),  # larger than a layer
        ((90, 90), (51, 11, 78, 38)),  # nearly the smallest square
    ],
)
def test_any_place_and_size(things: Pipeline, fast: SamplingSettings, size: tuple[int, int], box: Edges) -> None:
    upload, right = Image.new("RGB", size, (247, 181, 202)), 0
    for seed in range(2):
        *_, last = things.edit(upload, painted(box, size), "a frog", seed=seed, settings=fast)
        assert last.mask is not None
        kept = np.asarray(last.mask) == 0
        assert (np.asarray(last.image)[kept] == np.asarray(upload)[kept]).all()
        right += not last.missed
    assert right


def test_odd_images_and_masks_get_a_result(things: Pipeline, fast: SamplingSettings) -> None:
    wide, high = ((512, 26), (511, 25, 512, 26), "a cat"), ((26, 512), (0, 0, 26, 512), "three apples and a cow")
    for size, box, words in (
        wide,
        high,
        ((30, 600), (29, 599, 30, 600), "a key"),
        ((300, 16), (0, 0, 300, 16), "a cat"),
    ):
        *_, last = things.edit(Image.new("RGB", size, "white"), painted(box, size), words, seed=0, settings=fast)
        assert last.image.size == size and last.mask is not None and last.mask.getbbox()


def test_a_thing_is_found_completed_and_removed(things: Pipeline) -> None:
    ground, mask, stroke = (130, 200, 134), painted((64, 64, 192, 192)), Image.new("L", (256, 256))
    *_, drawn = things.edit(Image.new("RGB", (256, 256), ground), mask, "a red car", seed=1)
    found, asked = (np.asarray(one) > 0 for one in (things.suggest_mask(drawn.image, "the car"), mask))
    assert (found & asked).sum() / (found | asked).sum() > 0.6
    assert things.describe(drawn.image) == "a red car on a green background"
    for words in (None, "a car"):
        *_, last = things.edit(drawn.image, painted((64, 60, 122, 196)), words, seed=2)
        assert things.describe(last.image).startswith("a red car")
    ImageDraw.Draw(stroke).line([(80, 110), (175, 130), (85, 160)], 255, 22)
    *_, gone = things.edit(drawn.image, stroke, "a car", seed=3, remove=True)
    assert np.abs(np.asarray(gone.image).astype(int) - ground).max() <= 8


def test_more_things_than_there_is_room_for_are_left_out_and_that_is_said(things: Pipeline) -> None:
    fitted = things.fit_mask(Image.new("RGB", (64, 64), "pink"), painted((0, 0, 64, 64), (64, 64)), "12 cats")
    assert 1 < len(fitted.passes) < 12 and "of the 12 things" in fitted.notes[0]


def test_several_things_are_drawn_in_one_chain_as_one_by_one(things: Pipeline, fast: SamplingSettings) -> None:
    edits = [Edit(WHITE, painted((10, 40, 250, 130)), words, 5) for words in ("two frogs", "a house")]
    for one, together in zip(edits, things.edit_batch(edits, settings=fast), strict=True):
        *_, alone = things.edit(one.image, one.mask, one.prompt, seed=5, settings=fast)
        assert np.abs(np.asarray(alone.image, int) - np.asarray(together.image)).mean() < 1


def test_of_a_group_of_things_each_variant_has_its_own(things: Pipeline, fast: SamplingSettings) -> None:
    *_, last = things.edit(WHITE, painted((60, 60, 180, 180)), "an animal", seed=1, variants=3, settings=fast)
    assert len({tuple(nouns(things, image)) for image in last.images} - {()}) > 1


def test_whole_images_show_what_is_named(things: Pipeline) -> None:
    settings = things.defaults.replace(scales=2, corrector_steps=0)
    *_, last = things.generate("a hamburger left of an owl, on a pink background", seed=1, settings=settings)
    assert not last.missed and nouns(things, last.image) == ["hamburger", "owl"]
    assert things.describe(last.image).endswith("on a pink background")
