"""Edits, images from prompts and variations, on a tiny random model; and the clock of a run."""

import gc
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline, tiny_staged_model

from imagebart import InputError, SamplingSettings
from imagebart import pipeline as events
from imagebart.imaging import masks
from imagebart.imaging.files import read_recipe, write_png
from imagebart.pipeline import FIRST_SHARE, PREVIEW_SHARE, Clock, LazyImages, Pipeline, PipelineEvent
from imagebart.sampling.inpainting import out_of_domain
from imagebart.sampling.steps import ChainEvent


def noise_image(mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


PIPE = tiny_pipeline()
NOISE, WHITE = noise_image(), Image.new("L", (32, 32), 255)


def difference(one: Image.Image, other: Image.Image) -> int:
    """Of pixels, at most. Sums are rounded otherwise in a batch."""
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def result_of(run: Iterator[PipelineEvent]) -> PipelineEvent:
    *_, last = run
    return last


def gray_pipeline() -> Pipeline:
    """A pipeline all of whose images are gray."""
    pipe = tiny_pipeline()
    with torch.no_grad():
        for parameter in pipe.model.first_stage.decoder.parameters():
            parameter.zero_()
    return pipe


@pytest.mark.parametrize(
    ("mode", "size", "feather"),
    [("RGB", (32, 32), 0), ("RGBA", (33, 47), 3), ("P", (101, 40), 3), ("LA", (400, 301), 0), ("CMYK", (40, 101), 0)],
)
@pytest.mark.parametrize("exact", [False, True])
def test_pixels_outside_the_mask_never_change(mode: str, size: tuple[int, int], feather: int, exact: bool) -> None:
    upload = noise_image(mode, size)
    plain = upload.convert("RGBA" if upload.has_transparency_data else "RGB")
    mask = Image.new("L", size)
    mask.paste(255, (size[0] // 3, size[1] // 4, size[0] // 3 + 9, size[1] // 4 + 11))
    outside = np.asarray(mask if exact else PIPE.fit_mask(upload, mask, "red hair").mask) == 0
    events = [*PIPE.edit(upload, mask, "red hair", seed=1, feather=feather, exact=exact)]
    for event in events:
        assert event.mask is not None and ((np.asarray(event.mask) == 0) == outside).all()
        assert (event.image.size, event.image.mode) == (size, plain.mode)
        assert (np.asarray(event.image)[outside] == np.asarray(plain)[outside]).all()
    assert (events[0].kind, events[-1].kind) == ("start", "result")
    assert (np.asarray(events[-1].image)[~outside] != np.asarray(plain)[~outside]).any()


def test_a_mask_that_was_fitted_before_gives_the_same_edit() -> None:
    image, mask = noise_image("RGB", (93, 71)), masks.preset("upper half", (93, 71))
    fitted = PIPE.fit_mask(image, mask, "a hat", feather=4)
    first, second = (result_of(PIPE.edit(image, known, "a hat", seed=3, feather=4)) for known in (mask, fitted))
    assert (np.asarray(first.image) == np.asarray(second.image)).all()


@pytest.mark.parametrize("task", ["edit", "vary"])
def test_of_a_run_nothing_large_is_left_but_its_result(tmp_path: Path, task: str) -> None:
    size = (93, 71)  # of no other image here
    noise_image("RGBA", size).save(tmp_path / "in.png")
    mask = masks.preset("upper half", size)

    def alive() -> list[Image.Image]:
        return [found for found in gc.get_objects() if issubclass(type(found), Image.Image) and found.size == size]

    for _ in range(2):
        path = tmp_path / "in.png"
        events = PIPE.edit(path, mask, feather=9) if task == "edit" else PIPE.vary(path, 0.5)
        for event in events:
            if event.kind == "result":
                assert event.image.size == size
                assert {id(found) for found in alive()} == {id(mask), id(event.image), id(event.mask)} - {id(None)}
        del event, events
        assert [id(found) for found in alive()] == [id(mask)]


@pytest.mark.parametrize("size", [(32, 32), (70, 130)])
def test_what_is_generated_meets_what_is_kept(size: tuple[int, int]) -> None:
    """Gray beside another color: along the mask's edge it has the color of what is kept."""
    upload, mask = Image.new("RGB", size, (200, 60, 90)), masks.preset("left half", size)
    result = np.asarray(result_of(gray_pipeline().edit(upload, mask, None, seed=0)).image).astype(int)
    middle, row = size[0] // 2, size[1] // 2
    jump = np.abs(result[row, middle] - result[row, middle - 1]).max()
    assert jump < 20 < np.abs(result[row, middle] - result[row, 0]).max()


@pytest.mark.parametrize("scales", [1, 3])
def test_a_gray_mask_over_everything_is_a_variation(scales: int) -> None:
    settings = SamplingSettings(scales=scales)
    edited = [*PIPE.edit(NOISE, Image.new("L", (32, 32), 77), "red hair", seed=2, settings=settings)]
    varied = [*PIPE.vary(NOISE, float(np.float32(77 / 255)), "red hair", seed=2, settings=settings)]
    stages = [[event.stage for event in run if event.kind != "preview"] for run in (edited, varied)]
    assert stages[0] == stages[1] and np.array_equal(edited[-1].image, varied[-1].image)


def test_a_gray_mask_is_pasted_as_fully_as_a_white_one() -> None:
    upload, pipe = Image.new("RGB", (32, 32), (200, 60, 90)), gray_pipeline()
    faint, full = (result_of(pipe.edit(upload, Image.new("L", (32, 32), value), seed=0)).image for value in (90, 255))
    assert np.array_equal(faint, full) and not np.array_equal(faint, upload)


def test_a_model_of_stages_says_that_it_knows_one_strength() -> None:
    pipe, mask = Pipeline(tiny_staged_model("text", stages=3)), Image.new("L", (32, 32))
    mask.paste(51, (0, 0, 32, 16))
    one = next(pipe.edit(NOISE, mask, None, seed=0))
    assert one.stage < 3 and one.notes == []  # of three stages those that 20 % of noise needs
    mask.paste(128, (0, 0, 8, 8))
    two = next(pipe.edit(NOISE, mask, None, seed=0))
    assert two.notes == ["This model knows one strength for all of a mask: it used the largest, 50%."]


def test_a_seed_repeats_and_variant_n_is_the_image_of_seed_plus_n() -> None:
    first = result_of(PIPE.generate("red hair"))
    assert first.image.tobytes() == result_of(PIPE.generate("red hair", seed=first.seed)).image.tobytes()
    assert first.image.tobytes() != result_of(PIPE.generate("red hair", seed=first.seed ^ 1)).image.tobytes()
    for number, image in enumerate(result_of(PIPE.generate("a hat", seed=5, variants=3)).images):
        alone = result_of(PIPE.generate("a hat", seed=5 + number)).image
        assert difference(image, alone) <= 1


def test_a_list_of_classes_by_name_and_number_gives_an_image_each() -> None:
    animals, upload, mask = tiny_pipeline("class"), noise_image("RGB", (50, 36)), masks.preset("center", (50, 36))
    last = result_of(animals.edit(upload, mask, ["Dog", 0, "bird"], seed=5))
    told = [(one.prompt, one.variant, one.own_seed) for one in last.recipes]
    assert told == [("Dog", 0, 5), ("0", 1, 6), ("bird", 2, 7)] and animals.classes == ["cat", "dog", "bird"]
    assert len({image.tobytes() for image in last.images}) == 3
    for image, prompt, seed in zip(last.images, (1, "cat", "bird"), (5, 6, 7), strict=True):
        alone = result_of(animals.edit(upload, mask, prompt, seed=seed)).image
        assert difference(image, alone) <= 1


SETTINGS = SamplingSettings(temperature=0.7, top_k=9, guidance=2.0, resamples=2)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("edit", {"feather": 3, "context": 0.5}),
        ("edit", {"exact": True, "settings": SETTINGS}),
        ("edit", {"remove": True}),
        ("edit", {"movable": True}),
        ("generate", {"settings": SETTINGS, "variants": 2}),
        ("vary", {"strength": 0.4}),
    ],
)
def test_a_png_says_how_its_image_is_made_again(tmp_path: Path, task: str, options: dict[str, Any]) -> None:
    given = {} if task == "generate" else {"image": noise_image("RGB", (50, 36))}
    if task == "edit":
        given["mask"] = masks.preset("center", (50, 36))
    last = result_of(getattr(PIPE, task)(**given, prompt="red hair", **options))
    write_png(last.images[-1], tmp_path / "out.png", last.recipes[-1])
    found = read_recipe(tmp_path / "out.png")
    assert found is not None and (found.task, found.model, found.seed) == (task, "tiny", last.seed)
    of_recipe = {name: getattr(found, name) for name in {*options, "prompt", "settings"} - {"variants"}}
    again = result_of(getattr(PIPE, task)(**given, **of_recipe, seed=found.own_seed)).image
    assert difference(again, last.images[-1]) <= ("variants" in options)


@pytest.mark.parametrize("corrector_steps", [0, 3])
def test_progress_rises_to_one_and_names_stages(corrector_steps: int) -> None:
    model = tiny_model()
    model.denoiser.draft_head.weight.normal_(std=2)  # so that some tokens are unlikely
    settings = SamplingSettings(scales=2, resamples=2, corrector_steps=corrector_steps)
    events = list(Pipeline(model).generate("a hat", seed=0, settings=settings))
    assert events[0].remaining is None and events[-1].fraction == 1.0
    assert all(a.fraction <= b.fraction and a.elapsed <= b.elapsed for a, b in pairwise(events))
    done = [(e.stage, e.resample_index) for e in events if e.kind in ("stage", "result")]
    # The corrector works on the end of the last step, which is shown as well.
    assert done == [(2, 0), (2, 1), (1, 0), (1, 1), *[(1, 1)] * bool(corrector_steps)]
    assert events[-1].corrector_step == corrector_steps


def test_closing_stops_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, drawn, ended = PIPE.model.sampler.stream, list[int](), list[int]()

    def counted(*arguments: Any) -> Iterator[ChainEvent]:
        try:
            for event in stream(*arguments):
                drawn.append(event.position)
                yield event
        finally:
            ended.append(len(drawn))

    monkeypatch.setattr(PIPE.model.sampler, "stream", counted)
    run = PIPE.generate("a hat", seed=0)
    next(run)
    assert not drawn  # the first look costs no token
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert list(run) == [] and ended == [len(drawn)] and 0 < len(drawn) < 2 * 64


def test_a_model_of_stages_has_its_own_number_of_scales_and_a_denoiser_any() -> None:
    last, staged = result_of(PIPE.generate("a hat", settings=SamplingSettings(scales=4))), Pipeline(tiny_staged_model())
    assert PIPE.any_scales and (last.stages, last.recipe.settings.scales) == (4, 4)
    with pytest.raises(InputError, match="The number of scales is 3; this model was trained for 2"):
        staged.generate(None, settings=SamplingSettings(scales=3))
    for model, stages in ((PIPE, {1, 2}), (staged, {1})):  # the finest stage expects half
        assert {event.stage for event in model.vary(NOISE, 0.25, seed=3)} == stages


def test_bad_input_raises_before_the_first_event() -> None:
    for kind, task, arguments, said in (
        ("text", "generate", {"seed": 0.5}, "seed is 0.5, expected a whole number"),
        ("text", "generate", {"settings": 5}, "settings is 5, expected an object"),
        ("class", "generate", {"prompt": ["cat", "dog"], "variants": 3}, "2 prompts for 3 variants"),
        ("text", "edit", {"mask": Image.new("L", (32, 32))}, "Nothing is painted"),
        ("text", "edit", {"mask": WHITE, "image": b"no image at all"}, "not an image"),
        ("text", "edit", {"mask": WHITE, "context": math.nan}, "context is nan"),
        ("text", "vary", {"strength": None}, "strength is"),
    ):
        given = {"prompt": "a hat"} if task == "generate" else {"image": NOISE}
        with pytest.raises(InputError, match=said):
            getattr(tiny_pipeline(kind), task)(**{**given, **arguments})


def test_notes_name_unknown_words_and_images_out_of_domain() -> None:
    first, *_, last = PIPE.edit(NOISE, masks.preset("upper half", NOISE.size), "zebra with red hair", seed=0)
    assert all(any("zebra" in note for note in event.notes) for event in (first, last))
    assert any("knows nothing only" in note for note in last.notes)
    assert any("knows nothing only" in note for note in next(PIPE.vary(NOISE, 0.5, seed=0)).notes)
    assert '"sunglases" was read as "sunglasses".' in next(PIPE.generate("sunglases", seed=0)).notes
    assert any("cut at" in note for note in next(PIPE.generate("red hair " * 1200)).notes)
    assert next(PIPE.generate("a red \ud83d hat", seed=0)).recipe.prompt == "a red � hat"


def test_an_image_is_out_of_domain_where_what_is_kept_is_not_reconstructed() -> None:
    """A difference of d gray levels of 255 is 20 log10(255 / d) dB: 17 dB lie between 35 and 37 levels."""
    keep = torch.arange(64) < 8  # the first row of patches, of 4 pixels
    for levels, odd in ((35, False), (37, True)):
        after = torch.ones(1, 3, 32, 32)
        after[:, :, :4] = levels / 127.5
        assert bool(out_of_domain(PIPE.model, torch.zeros(1, 3, 32, 32), after, keep)) == odd
    everything = result_of(PIPE.edit(NOISE, WHITE, seed=0))
    assert not everything.notes, "nothing of it is left"


def test_without_words_guidance_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Mock(wraps=PIPE.model.sampler.stream)
    monkeypatch.setattr(PIPE.model.sampler, "stream", stream)
    guided = SamplingSettings(guidance=3.0)
    runs = [result_of(PIPE.generate(prompt, seed=0, settings=guided)) for prompt in (None, "zebra", "red hair")]
    assert [call.args[1].guidance for call in stream.call_args_list] == [1.0, 1.0, 3.0]
    assert all(run.recipe.settings == guided for run in runs), "what was asked for"


def test_a_saved_model_brings_its_settings_and_any_card_without_its_header(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    assert (loaded.name, loaded.knows, loaded.defaults) == ("tiny", "nothing", SamplingSettings(scales=2))
    assert loaded.suggestions == tiny_pipeline().suggestions
    assert "It generates nothing at 32 × 32 pixels;" in loaded.card
    for content, card in (
        (b"---\nlicense: mit\n---\n\n# Tiny\n", "# Tiny\n"),
        *((b"---\ncaf", "---\ncaf"), (b"\xff\xfe caf\xe9", "\ufffd\ufffd caf\ufffd"), (b"", loaded.card)),
    ):
        (tmp_path / "README.md").write_bytes(content)
        assert Pipeline.from_pretrained(tmp_path).card == card


# The clock of a run: previews keep within their share of the time, and come at a steady rate.


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass only when the test adds some."""
    time = SimpleNamespace(now=100.0, perf_counter=lambda: time.now)
    monkeypatch.setattr(events, "time", time)
    return time


@pytest.mark.parametrize("token", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("cost", [0.002, 0.04, 0.5])
def test_previews_take_their_share_and_no_more(time: SimpleNamespace, token: float, cost: float) -> None:
    """A run of two stages of 400 tokens. At every moment the share holds; where a preview is cheap, it is used up."""
    began, shown = time.now, []
    clock = Clock(SamplingSettings(), stages=2)
    time.now += cost
    clock.record("start", cost)
    for number in range(800):
        time.now += token
        if number == 400:
            time.now += cost
            clock.record("stage", cost)
        elif clock.preview_due():
            time.now += cost
            clock.record("preview", cost)
            shown.append(time.now)
        assert cost * len(shown) <= (PREVIEW_SHARE if len(shown) > 1 else FIRST_SHARE) * clock.elapsed() + 1e-9
    total = time.now - began
    assert clock.elapsed() == pytest.approx(total)
    expected = min(PREVIEW_SHARE * total / cost, 799)
    assert 0.6 * expected - 1 <= len(shown) <= max(expected, 1), "the first comes sooner than its share"
    gaps = [b - a for a, b in pairwise(shown)]
    if len(gaps) > 3:
        assert max(gaps) <= 2 * min(gaps) + 2 * cost + token


def test_a_long_preview_delays_the_next_also_where_it_is_pasted_late(time: SimpleNamespace) -> None:
    clock = Clock(SamplingSettings(), stages=2)
    clock.record("start", 0.01)
    clock.record("start", 0.19, pasted=True)
    for cost, wait in ((0.2, 0.4), (0.2, 3.5)):  # FIRST_SHARE of the time, then PREVIEW_SHARE
        time.now += wait - 0.1
        assert not clock.preview_due()
        time.now += 0.2
        assert clock.preview_due()
        clock.record("preview", 0.01)
        clock.record("preview", cost - 0.01, pasted=True)


def test_images_are_made_once_where_they_are_looked_at() -> None:
    make = Mock(return_value=[NOISE])
    images = LazyImages(make)
    make.assert_not_called()
    assert images()[0] is images()[0]
    make.assert_called_once()
