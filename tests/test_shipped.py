"""The model in checkpoints/avatars: it loads, follows prompts and keeps what it should."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from imagebart import Pipeline
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging import masks
from imagebart.models.diffusion import add_uniform_noise
from imagebart.sampling.sampler import correct
from imagebart.sampling.steps import ChainEvent
from imagebart.worlds.attribute_classifier import AvatarScorer
from imagebart.worlds.avatars import PLAIN
from recipes.avatars.artwork import BACKGROUNDS, region_mask, rendered
from recipes.avatars.dataset import avatar_item, sample

HERE = Path(__file__).parent.parent
pytestmark = pytest.mark.shipped


def example(number: int) -> Path:
    """An example; its mask lies beside it."""
    found = (HERE / "checkpoints" / "avatars" / "examples").glob(f"{number}-*.png")
    return next(path for path in found if not path.stem.endswith(".mask"))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(HERE / "checkpoints" / "avatars")


def test_the_corrector_finds_wrong_tokens_and_mends_them(pipe: Pipeline) -> None:
    """Of rendered avatars, five of whose tokens were replaced at random."""
    model, seed = pipe.model, torch.Generator().manual_seed(0)
    items = [avatar_item(6 * 10**8 + i, pipe.image_size, "all") for i in range(8)]
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


def test_right_captions_make_images_likelier_than_wrong_ones(pipe: Pipeline) -> None:
    """Over fresh avatars, paired: a model that ignores its prompt exceeds three standard errors once in 700 runs."""
    model, denoiser = pipe.model, pipe.model.denoiser
    assert denoiser is not None
    items = [avatar_item(5 * 10**8 + i, pipe.image_size, "all") for i in range(24)]
    x0 = model.first_stage.encode(torch.stack([item["image"] for item in items]) / 127.5 - 1)
    rates = torch.full(x0.shape, 0.5)
    xt = add_uniform_noise(x0, rates, model.vocab_size, torch.Generator().manual_seed(0))
    texts = [item["text"] for item in items]
    losses = []
    for captions in (texts, texts[1:] + texts[:1]):
        cond = model.conditioner.encode(captions).tokens
        logits = denoiser.logits(x0, xt, rates, torch.zeros_like(rates), cond=cond)
        losses.append(F.cross_entropy(logits.transpose(1, 2), x0, reduction="none").mean(1))
    gain = losses[1] - losses[0]
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


def test_sunglasses_darken_the_eyes_and_change_nothing_else(pipe: Pipeline) -> None:
    """Paired by seed against "no glasses": the dark share of the painted pixels grows on average."""
    dark: dict[str, list[float]] = {"sunglasses": [], "no glasses": []}
    for number in (3, 5):
        path = example(number)
        upload = Image.open(path).convert("RGB")
        mask = Image.fromarray((region_mask("eyes", upload.width) * 255).astype(np.uint8))
        inside = np.asarray(mask) > 0
        for prompt, shares in dark.items():
            last = list(pipe.edit(upload, mask, prompt, seed=10, variants=6))[-1]
            for result in last.images:
                after = np.asarray(result, int)
                outside = np.asarray(last.mask) == 0
                assert (after[outside] == np.asarray(upload)[outside]).all()
                shares.append(float((after[inside].sum(-1) < 200).mean()))
    assert np.mean(dark["sunglasses"]) > np.mean(dark["no glasses"]) + 0.03


def test_every_suggestion_is_of_words_that_the_model_knows(pipe: Pipeline) -> None:
    assert {"hair", "glasses", "mouth", "background"} <= set(pipe.suggestions)
    for words in pipe.suggestions.values():
        assert words
        for suggestion in words:
            assert pipe.unknown_words(suggestion) == []


def test_avatars_are_familiar_and_noise_is_not(pipe: Pipeline) -> None:
    avatar = Image.open(example(1)).convert("RGB")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    mask = masks.preset("centre", (128, 128))
    assert not list(pipe.edit(avatar.resize((128, 128)), mask, "a hat", seed=0))[-1].notes
    notes = list(pipe.edit(noise, mask, "a hat", seed=0))[-1].notes
    assert any("avatars only" in note for note in notes)


def test_an_avatar_in_a_landscape_is_known_to_be_something_else_before_an_edit(pipe: Pipeline) -> None:
    x, y = np.meshgrid(np.arange(450), np.linspace(0, 1, 300))
    scene = np.array([120, 180, 240]) + np.array([110, 60, 10]) * y[..., None]  # a sky, and hills
    for top, color in ((0.5, (110, 130, 150)), (0.65, (60, 120, 60)), (0.8, (90, 160, 70))):
        scene[y > top + 0.06 * np.sin(x / (90 * top)) + 0.03 * np.sin(x / 13)] = color
    landscape = Image.fromarray(scene.astype(np.uint8))
    with_avatar = landscape.copy()
    with_avatar.paste(Image.open(example(1)).convert("RGB").resize((140, 140)), (150, 150))
    for image in (landscape, with_avatar):
        assert any("avatars only" in note for note in pipe.domain_notes(image))
    for number in range(1, 9):
        assert not pipe.domain_notes(example(number)), number


def test_upper_halves_go_on_in_the_background_of_the_lower(pipe: Pipeline) -> None:
    """By the colors of both upper corners; by chance one in eight."""
    avatars = [sample(4 * 10**8 + number, 900_003) for number in range(20)]
    masks_above = np.stack([masks.preset_array("upper half", pipe.image_size)] * len(avatars))
    sampler = ImageSampler(pipe.model, pipe.defaults)
    images = sampler.edit(rendered(avatars, pipe.image_size), masks_above, [None] * len(avatars), seed=3)
    corners = (images[:, :, 2, [2, -3]] + 1) * 127.5
    colors = torch.tensor([list(bytes.fromhex(BACKGROUNDS[avatar.background][1:])) for avatar in avatars])
    assert ((corners - colors[..., None]).abs().amax((1, 2)) < 24).sum() >= 18


def test_the_scorer_reads_prompts_and_puts_what_they_ask_for_first(pipe: Pipeline) -> None:
    scorer = pipe.scorer
    assert isinstance(scorer, AvatarScorer)
    claims = scorer.claims("Red hair, sunglasses and a hoodie")
    assert (claims["hair_color"], claims["clothing"]) == ({"red"}, {"hoodie"})
    assert "sunglasses" in claims["accessory"] and "none" not in claims["accessory"]
    assert scorer.claims("") == {}
    looks = ("none", "glasses", "sunglasses", "eyepatch")
    images = rendered([replace(PLAIN, accessory=look) for look in looks], pipe.image_size)
    assert scorer.score(images, "an eyepatch").argmax() == looks.index("eyepatch")
    assert scorer.score(images, "no glasses").argmax() in (0, 3)


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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux keeps account of memory there")
def test_edits_of_the_largest_images_take_little_over_a_gigabyte_with_all_that_is_loaded(tmp_path: Path) -> None:
    """One after another, of an image with transparency, with the widest feather, each moment looked at."""
    Image.new("RGBA", (6250, 4000), (9, 8, 7, 100)).save(tmp_path / "in.png")
    command = [sys.executable, "-c", LARGE, str(HERE / "checkpoints" / "avatars"), str(tmp_path)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 1.2e9
