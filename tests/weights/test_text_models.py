"""Text models of the original's kind, against what its own networks compute (recorded by record_original.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from published_files import TINY, scale_tensors, write_checkpoint
from safetensors.torch import load_file

from imagebart import ImageBART, Pipeline
from imagebart.errors import InputError
from imagebart.weights import WeightsError
from imagebart.weights.published.registry import read_stage_yaml

RECORDED = TINY / "text_cond"
BETAS = (0.37, 1.0)


def written(folder: Path) -> Path:
    """The checkpoints of the recorded model."""
    shutil.copytree(RECORDED, folder, dirs_exist_ok=True)
    for t in (1, 2):
        description = read_stage_yaml(folder / f"scale{t}.yaml")
        write_checkpoint(folder / f"scale{t}.ckpt", scale_tensors(description, t, BETAS))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("text"))


def test_logits_are_the_originals(folder: Path, tmp_path: Path) -> None:
    expected = load_file(RECORDED / "expected.safetensors")
    published = ImageBART.from_pretrained(folder)
    published.save_pretrained(tmp_path)
    for model in (published, ImageBART.from_pretrained(tmp_path)):
        assert model.cond_length == expected["cond"].shape[1] == 7
        for t, stage in enumerate(model.stages, 1):
            logits = stage.logits(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"])
            assert (logits - expected[f"stage{t}.logits"]).abs().max() < 1e-4
            other = stage.logits(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"].flip(1))
            assert (logits - other).abs().max() > 1e-2  # the text is read


def test_it_draws(folder: Path) -> None:
    model = ImageBART.from_pretrained(folder)
    cond = torch.randint(100, (2, 7))
    assert model.sample(2, cond=cond, seed=0).shape == (2, 16)
    with pytest.raises(ValueError, match=r"cond has shape \[2, 6\], expected \[2, 7\]"):
        model.sample(2, cond=cond[:, 1:])
    with pytest.raises(InputError, match="knows 100 tokens; prompts take all 49408"):
        Pipeline(model).generate("a red house")


def test_a_prompt_is_read_where_all_of_clips_tokens_are_known(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.yaml"):
        text = path.read_text().replace("enc_num_tokens: 100", "enc_num_tokens: 49408")
        (tmp_path / path.name).write_text(text.replace("input_vocab_size: 100", "input_vocab_size: 49408"))
    for t in (1, 2):
        described = read_stage_yaml(tmp_path / f"scale{t}.yaml")
        write_checkpoint(tmp_path / f"scale{t}.ckpt", scale_tensors(described, t, BETAS))
    pipe = Pipeline(ImageBART.from_pretrained(tmp_path))
    *_, last = pipe.generate("a red house", seed=0)
    assert last.kind == "result" and last.notes == []
    *_, last = pipe.generate("a red house by the sea", seed=0)
    assert len(last.notes) == 1  # 7 tokens are 5 words with a beginning and an end


def test_a_text_without_room_is_refused(folder: Path, tmp_path: Path) -> None:
    model = written(tmp_path / "model")
    path = model / "scale1.yaml"
    path.write_text(path.read_text().replace("enc_max_seq_len: 24", "enc_max_seq_len: 17"))
    with pytest.raises(WeightsError, match="a longest sequence of 17, expected more than t and the 16 image tokens"):
        ImageBART.from_pretrained(model)
