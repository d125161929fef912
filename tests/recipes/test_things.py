"""The recipe of layers: drawings, pictures that they stand in, and their first stage."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_models import tiny_model

from imagebart.model import ImageBART
from imagebart.models.vqgan import NOTHING, FirstStage, FirstStageConfig
from imagebart.training.config import DenoiserRun, LoopConfig, StageShape
from imagebart.training.denoiser import train_denoiser
from imagebart.weights.folder import load_networks
from imagebart.worlds.ranking import DETECTOR
from imagebart.worlds.things import ThingDetector, save_detector
from recipes import generator
from recipes.things import detector, evaluation, layers
from recipes.things.__main__ import main
from recipes.things.denoiser import conditioner, prompt, task_data
from recipes.things.first_stage import START, LayersRun, init_codes, psnr_over, train_first_stage
from recipes.things.layers import GRID, NOUNS, SIDE, colored, drawing, laid, picture

SHAPE = FirstStageConfig(
    resolution=SIDE, channels=32, multipliers=(1, 1), res_blocks=1, attention_resolutions=(), latent_channels=32,
    code_dim=48, codebook_size=300, pixel_unshuffle=12, decoder="alpha",
)  # fmt: skip
HELD = 4  # nouns


@pytest.fixture(autouse=True)
def drawn_artwork(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Disks and squares in place of the artwork, which is fetched from a registry; noise in place of photographs."""
    files = {}
    for number, noun in enumerate(NOUNS[:HELD]):
        image, content = Image.new("RGBA", (256, 256)), io.BytesIO()
        draw = ImageDraw.Draw(image).ellipse if number % 2 else ImageDraw.Draw(image).rectangle
        draw((28, 28, 227, 227 - 60 * (number // 2)), fill=((220, 30, 40), (120, 120, 120))[number // 2])
        image.save(content, "WEBP", lossless=True)
        files[noun.code] = content.getvalue()
    noise, photograph = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8), io.BytesIO()
    Image.fromarray(noise).save(photograph, "PNG")
    monkeypatch.setattr(layers, "_files", lambda: files)
    monkeypatch.setattr(layers, "_photographs", lambda part: (photograph.getvalue(),))
    monkeypatch.setattr(detector, "NOTHING", HELD)
    detector._small.cache_clear()
    for module in ("layers", "first_stage", "denoiser", "detector", "evaluation"):
        monkeypatch.setattr(f"recipes.things.{module}.NOUNS", NOUNS[:HELD])
    drawing.cache_clear()


def test_a_drawing_stands_in_its_box_above_its_shadow_and_takes_colors() -> None:
    red_square, red_disk, gray_square, _ = (drawing(noun) for noun in range(HELD))
    for drawn in (red_square, red_disk, gray_square):
        opaque = drawn[..., 3] > 0.99
        assert opaque.any(0).sum() == pytest.approx(0.94 * SIDE, abs=3)
        assert (drawn[..., :3] <= drawn[..., 3:4] + 1e-6).all()
        shadow = (drawn[..., 3] > 0.02) & (drawn[..., :3].max(2) == 0)
        assert shadow.any() and not shadow[: SIDE // 2].any()
    for noun, own in ((0, (220, 30, 40)), (2, (120, 120, 120))):
        middle = 255 * colored(noun, "")[SIDE // 2 + 20, SIDE // 2]
        assert abs(middle - (*own, 255)).max() < 2
        blue = colored(noun, "blue")[SIDE // 2 + 20, SIDE // 2]
        assert blue[2] > 1.5 * blue[0] and blue[3] == pytest.approx(1)


def test_a_picture_shows_a_thing_where_it_says_so() -> None:
    shown = 0
    for number in range(40):
        item = picture(number, hidden=False)
        assert item["seen"].all() and item["image"].shape == (3, SIDE, SIDE)
        layer = colored(item["noun"], item["color"])
        opaque = layer[..., 3] > 0.999
        image = item["image"].permute(1, 2, 0).numpy()
        assert abs(image[opaque] - 255 * layer[opaque, :3]).max() <= 1
        shown += int((item["image"].flatten(1).float().std(1) > 0).all())
        again, hidden = picture(number, hidden=False), picture(number)
        assert (again["image"] == item["image"]).all() and hidden["noun"] == item["noun"]
    assert shown > 30
    seen = torch.stack([picture(number)["seen"] for number in range(60)])
    assert 0.05 < (~seen).flatten(1).any(1).float().mean() < 0.5


def test_codes_begin_with_what_the_drawings_look_like() -> None:
    torch.manual_seed(0)
    model, drawn = FirstStage(SHAPE), torch.stack([torch.from_numpy(drawing(n)).permute(2, 0, 1) for n in range(HELD)])
    tokens = init_codes(model, drawn)
    decoded = model.decode(tokens)
    assert psnr_over(drawn, decoded, torch.rand(HELD, 3, 1, 1)).min() > 35
    empty = (torch.nn.functional.max_pool2d(drawn[:, 3], SIDE // GRID) < 2 / 255).flatten(1)
    assert torch.equal(tokens == NOTHING, empty) and empty.any() and not empty.all()


def test_psnr_is_of_what_is_seen_over_a_ground() -> None:
    layer, other = torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8)
    ground = torch.rand(2, 3, 1, 1)
    expected = []
    for one, two, below in zip(*(part.permute(0, 2, 3, 1).numpy() for part in (layer, other, ground)), strict=True):
        expected.append(-10 * np.log10(((laid(one, below) - laid(two, below)) ** 2).mean()))
    assert psnr_over(layer, other, ground).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_trained_parts_become_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.things.first_stage.MEASURED", 4)
    loop, first = LoopConfig(steps=2, batch_size=4, warmup=1), tmp_path / "layers"
    train_first_stage(LayersRun(model=SHAPE, loop=loop), first)
    assert load_networks(first).first_stage.config == SHAPE
    train_first_stage(LayersRun(model=SHAPE, loop=loop, init_from=str(first), decoder_only=True), tmp_path / "further")
    before, after = (load_networks(folder).first_stage.state_dict() for folder in (first, tmp_path / "further"))
    moved = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {"decoder", "quantize"} and (tmp_path / "further" / START).is_file()
    shape = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=1)
    own = {"text_length": 16, "query_token_dropout": 0.0, "tied_embeddings": True}
    run = DenoiserRun(data="", first_stage=str(first), loop=loop, shape=shape, **own)
    train_denoiser(run, tmp_path / "denoiser", task_data)
    made, parts, tokens = tmp_path / "model", tmp_path / "model.json", torch.arange(GRID**2)[None]
    folders = {"first_stage": str(tmp_path / "further"), "denoiser": str(tmp_path / "denoiser")}
    parts.write_text(json.dumps(folders | {"about": {"name": "tiny"}}))
    assert main(["assemble", "--config", str(parts), "--out", str(made)]) == 0
    model, newest = ImageBART.from_pretrained(made), load_networks(tmp_path / "further").first_stage
    torch.testing.assert_close(model.first_stage.decode(tokens), newest.decode(tokens), rtol=0.02, atol=0.02)


@pytest.mark.release
def test_a_model_of_layers_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, make = tiny_model(layers=True), evaluation.with_thing
    model.conditioner = conditioner(16).replace(tokens=model.conditioner.tokens)
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / DETECTOR
    save_detector(ThingDetector(len(detector.NAMES.nouns), 12, width=8), detector.NAMES, file)
    # Half of a thing is painted with its name, as the detector sees none.
    monkeypatch.setattr(evaluation, "with_thing", lambda number, *given: make(2 * number, *given))
    figures, grids = tmp_path / "figures.json", tmp_path / "grids"
    measured = ["evaluate", "--model", str(tmp_path / "model"), "--samples", "6", "--out", str(figures)]
    assert main([*measured, "--grids", str(grids)]) == 0, capsys.readouterr().err
    values = {one["name"]: one["value"] for one in json.loads(figures.read_text())["measures"]}
    assert values["no pixel changed outside the mask"] == 1 and len(list(grids.iterdir())) == 8
    file.unlink()
    assert main(measured) == 2 and "has no detector of things" in capsys.readouterr().err


def test_squares_show_what_their_labels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    colors = Counter[str]()
    for name in ("P_OVER", "P_SLAB"):  # what hides a thing's middle
        monkeypatch.setattr(detector, name, 0)
    for number in range(120):
        square = detector.square_item(number)
        if square["noun"] == HELD:
            continue
        _, across, down, _ = (32 + 64 * square["place"]).int().tolist()
        middle = square["image"][:, down - 1 : down + 2, across - 1 : across + 2].float().mean((1, 2)).numpy()
        color = detector.COLOR_NAMES[square["color"]]
        colors[color] += 1
        shown = colored(square["noun"], "" if color == NOUNS[square["noun"]].color else color)[SIDE // 2, SIDE // 2]
        assert abs(middle - 255 * shown[:3]).max() < 25
    assert 50 < colors.total() < 95 and len(colors) > 8


def test_prompts_name_the_thing_in_words_that_are_read() -> None:
    words = conditioner(16)
    for number in range(100):
        noun = NOUNS[number % HELD]
        said = prompt(number % HELD, generator(number, 0, 1))
        assert any(name in said for name in (noun.name, noun.plural, *noun.synonyms))
        assert words.encode([said]).notes == []
