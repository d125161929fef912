"""What is trained on: folders of images, held-out ones, stores and views of them; masks and noise levels."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import binomial_z
from PIL import Image
from tiny_runs import HUES, draw_folder

from imagebart.core.errors import InputError
from imagebart.training import masks
from imagebart.training.data import (
    MAX_VIEWS,
    AugmentedViews,
    Example,
    ImageStore,
    StoreIndex,
    inspect_dataset,
    open_dataset,
    split_held_out,
    stored_dataset,
)


def inspected(folder: Path) -> tuple[StoreIndex, str]:
    """What is known of a folder's images, and what is said of them."""
    said = inspect_dataset(open_dataset(str(folder)), 32, folder.parent / f"{folder.name} stored")
    return ImageStore(folder.parent / f"{folder.name} stored").index, "\n".join(said)


def test_captions_classes_and_bare_images(tmp_path: Path) -> None:
    """Parts called train and test are no classes."""
    captions, said = inspected(draw_folder(tmp_path / "text", "text"))
    assert captions.kind == "text" and captions.texts.count("a red circle") == 4
    assert "24 images, 4 of them held out" in said and "6 different words in captions, most frequent: a (24)" in said
    assert "short sides of 40 to 40 pixels, 40 in the middle" in said
    classes, said = inspected(draw_folder(tmp_path / "class", "class"))
    assert classes.kind == "class" and classes.texts.count("red") == 8 and "3 classes, most frequent: " in said
    train, test = draw_folder(tmp_path / "none" / "train", "none", 25), tmp_path / "none" / "test"
    test.mkdir()
    for i in range(5):
        shutil.move(train / f"{i}.png", test / f"other{i}.png")
    bare, _ = inspected(tmp_path / "none")
    assert bare.kind == "none"
    assert {bare.names[i] for i in bare.numbers(True)} == {f"test/other{i}.png" for i in range(5)}


def test_what_cannot_be_used_is_named_and_left_out(tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "data", "text")
    Image.new("RGB", (40_000, 10)).save(data / "long.png")
    (data / "empty.png").write_bytes(b"")
    (data / "broken.png").write_bytes((data / "1.png").read_bytes()[:120])
    frames = [Image.new("RGB", (50, 50), (0, 0, 80 * i)) for i in range(3)]
    frames[0].save(data / "moving.gif", save_all=True, append_images=frames[1:])
    shutil.copy(data / "1.png", data / "again.png")
    Image.new("CMYK", (60, 60), (5, 100, 20, 3)).save(data / "printed.jpg")
    Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60) * 18).save(data / "deep.png")
    bad, good = ("long.png", "empty.png", "broken.png", "moving.gif", "nowhere.png"), ("printed.jpg", "deep.png")
    with (data / "metadata.jsonl").open("a") as file:
        for name in (*bad, *good, "again.png"):
            file.write("\n" + json.dumps({"file_name": name, "text": "more", "author": "nobody"}))
    index, said = inspected(data)
    assert not set(bad) & set(index.names) and set(good) <= set(index.names)
    assert len({"1.png", "again.png"} & set(index.names)) == 1
    assert "6 left out:" in said and "  nowhere.png: " in said and len(index.names) == 26


def test_what_holds_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        open_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no images"):
        open_dataset(str(tmp_path))
    with pytest.raises(InputError, match="3 images .* at least 16"):
        inspected(draw_folder(tmp_path / "three", "none", 3))
    draw_folder(tmp_path / "text", "text")
    (tmp_path / "text" / "metadata.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="metadata.jsonl each line"):
        open_dataset(str(tmp_path / "text"))


def test_one_in_twenty_is_held_out_whatever_the_order_or_a_split_called_test() -> None:
    def examples(count: int, is_test: bool = False) -> list[Example]:
        return [Example(f"{i}.png", Path(), "", is_test) for i in range(count)]

    there, back = examples(200), examples(200)[::-1]
    chosen, again = ({e.name for e, held in zip(es, split_held_out(es), strict=True) if held} for es in (there, back))
    assert chosen == again and len(chosen) == 10
    assert sum(split_held_out(examples(12_000))) == 500, "no more than are needed"
    tests = examples(200, is_test=True)
    assert split_held_out([*examples(1), *tests[:3]]) == [False, True, True, True]
    assert sum(split_held_out(tests)) == 10, "where it is all there is"


def test_a_folder_is_stored_once_and_what_is_not_held_out_has_views(tmp_path: Path) -> None:
    data = str(draw_folder(tmp_path / "data", "class"))
    first = stored_dataset(data, 32, tmp_path / "store")
    shutil.rmtree(data)
    for place in (data, str(tmp_path / "store")):  # a store can be named itself
        items = stored_dataset(place, 32, tmp_path / "store")
        assert len(items) == 20 * MAX_VIEWS and items.texts == first.texts and set(items.texts) == {*HUES}
    with pytest.raises(InputError, match="images of 32 pixels a side, expected 64"):
        stored_dataset(data, 64, tmp_path / "store")
    (tmp_path / "store" / "pixels.bin").write_bytes(b"cut")
    with pytest.raises(InputError, match="delete it to read the images again"):
        ImageStore(tmp_path / "store")
    with pytest.raises(InputError, match="images.json"):
        ImageStore(tmp_path)


def test_views_are_the_middle_that_mirrored_and_crops_and_the_same_each_time(tmp_path: Path) -> None:
    inspected(draw_folder(tmp_path / "data", "text"))
    store = ImageStore(tmp_path / "data stored")
    number = store.index.names.index("0.png")
    with Image.open(tmp_path / "data" / "0.png") as image:
        expected = image.convert("RGB").resize((36, 36), Image.Resampling.LANCZOS).crop((2, 2, 34, 34))
    middle = store.view(number, 0)
    assert Image.fromarray(middle.permute(1, 2, 0).numpy()).tobytes() == expected.tobytes()
    assert torch.equal(store.view(number, 1), middle.flip(2)) and store.index.texts[number] == "a red circle"
    views = AugmentedViews(store, store.index.numbers(held_out=False), 6)
    assert len(views) == 20 * 6 and not set(store.index.numbers(True)) & set(views.numbers)
    assert torch.equal(views[70]["image"], views[70]["image"])
    assert len({tuple(views[20 * view]["image"].flatten().tolist()) for view in range(6)}) >= 4
    assert {views[20 * view]["text"] for view in range(6)} == {views[0]["text"]}


def test_masks_are_shapes_their_inverses_and_for_a_share_the_whole_image() -> None:
    """Of four shapes one leaves next to nothing, three are inverted half the time: 5 in 8 tokens are unknown."""
    drawn = masks.random_masks(4000, 16)
    assert drawn.shape == (4000, 256) and drawn.any(1).all(), "none is empty"
    whole = int(drawn.all(1).sum())
    assert binomial_z(whole, 4000, masks.P_EVERYTHING) > -4
    assert binomial_z(whole, 4000, masks.P_EVERYTHING + 0.03) < 4
    parts = drawn[~drawn.all(1)].float().view(-1, 16, 16)
    assert 0.1 < parts.mean((1, 2)).quantile(0.2) < 0.5 < parts.mean((1, 2)).quantile(0.6) < 0.95
    shares = parts.mean(0)
    assert shares.min() > 0.5 and shares.max() < 0.75


def test_a_small_patch_is_all_that_is_kept_of_a_color() -> None:
    """Of a red and of a blue half, one is masked but for a small box, mostly in the patches that both share."""
    halves = torch.full((400, 3, 64, 64), -1.0)
    halves[:, 0, :, :30], halves[:, 2, :, 30:] = 1.0, 1.0
    drawn = masks.keep_color_patches(halves, 32)
    colors = torch.stack([drawn[:, :, :15].float().mean((1, 2)), drawn[:, :, 15:].float().mean((1, 2))], 1)
    kept = 1 - colors.amax(1)
    assert kept.max() <= 8 * 8 / (32 * 15) and 0.5 < (kept > 0).float().mean() < 0.9
    assert 100 < int((colors[:, 0] > colors[:, 1]).sum()) < 300, "either half"
    assert 0 < colors.amin(1).quantile(0.5) < 0.25 and colors.amin(1).max() > 0.3, "a margin, or one more shape"
    red = ~drawn[(colors[:, 0] > colors[:, 1]) & (colors[:, 0] < 1), :, :15]
    assert 0 < red[:, :, :12].flatten(1).any(1).float().mean() < 0.3, "patches of one color are seldom kept"
    plain = (~masks.keep_color_patches(torch.zeros(200, 3, 32, 32), 32)).flatten(1).sum(1)
    assert plain.max() <= 64 and abs(binomial_z(int((plain == 0).sum()), 200, masks.P_MIXED_COLORS)) < 4


def test_painted_masks_cut_patches() -> None:
    drawn = masks.painted_masks(torch.rand(100, 3, 64, 64) * 2 - 1, 16)
    assert drawn.shape == (100, *[16 * masks.PARTS_PER_PATCH] * 2) and drawn.flatten(1).any(1).all()
    shares = F.avg_pool2d(drawn[:, None].float(), masks.PARTS_PER_PATCH)
    assert ((shares > 0) & (shares < 1)).flatten(1).any(1).float().mean() > 0.3


def test_brush_strokes_are_one_piece_wherever_they_are() -> None:
    """Strokes bend, so that few are boxes."""
    strokes = [masks.brush_stroke(16).numpy().astype(np.uint8) for _ in range(200)]
    assert all(cv2.connectedComponents(stroke)[0] == 2 for stroke in strokes), "the stroke, and what is around it"
    assert sum(stroke.any(1).sum() * stroke.any(0).sum() == stroke.sum() for stroke in strokes) < 40


def test_noise_levels_fall_and_have_their_shares() -> None:
    """Half of the steps begin at pure noise, two thirds end at x_0; within four deviations."""
    noise_t, noise_s = masks.random_noise_levels(4000)
    assert noise_t.shape == noise_s.shape == (4000, 1)
    assert noise_s.min() >= 0 and (noise_s < noise_t).all()
    assert noise_t.min() >= masks.MIN_NOISE and noise_t.max() <= 1
    full, to_x0 = noise_t == 1, noise_s == 0
    shares = {masks.P_FULL_NOISE: full, masks.P_TO_X0: to_x0, masks.P_FULL_NOISE * masks.P_TO_X0: full & to_x0}
    for share, which in shares.items():
        assert abs(binomial_z(int(which.sum()), 4000, share)) < 4
    others = noise_t[noise_t < 1]
    assert abs(others.mean() - (1 + masks.MIN_NOISE) / 2) < 4 * (1 - masks.MIN_NOISE) / 12**0.5 / len(others) ** 0.5
    left = (noise_s / noise_t)[noise_s > 0]
    assert abs(left.mean() - 0.5) < 4 / 12**0.5 / len(left) ** 0.5
