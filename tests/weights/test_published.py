"""Published files: against outputs recorded from the original (small random weights), in folders, and converted."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_injection import run_in_fork
from published_files import (
    CLASS_MODEL,
    RESIDUAL_MODEL,
    TINY,
    assert_refused,
    load,
    same_weights,
    scale_tensors,
    write_checkpoint,
    write_tiny,
)
from safetensors.torch import load_file
from torch import Tensor

from imagebart import Pipeline
from imagebart.core.errors import InputError, WeightsError
from imagebart.weights import convert as module
from imagebart.weights.convert import convert, read_state_dict
from imagebart.weights.registry import read_stage_yaml

State = dict[str, Any]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4


RECORDED = pytest.mark.parametrize("folder", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda folder: folder.name)


@RECORDED
def test_recorded_tokens_and_pixels_are_computed_again(folder: Path) -> None:
    first_stage, recorded = load(folder).first_stage, load_file(folder / "expected.safetensors")
    codebook, used = first_stage.quantize.embedding.weight, first_stage.quantize.used
    latents, entries = first_stage.latents(recorded["vqgan.image"]), recorded["vqgan.full_indices"]
    assert_close(latents.permute(0, 3, 1, 2), recorded["vqgan.prequant"])
    assert torch.equal(torch.cdist(latents.flatten(1, 2), codebook[None]).argmin(-1), entries)
    tokens, in_use = first_stage.encode(recorded["vqgan.image"]), torch.isin(entries, used)
    assert 0.3 < in_use.float().mean() < 1  # both cases occur
    assert torch.equal(used[tokens][in_use], entries[in_use])
    assert_close(first_stage.decode(recorded["vqgan.tokens"]), recorded["vqgan.decoded"])
    entries = entries.unflatten(1, [round(entries.shape[1] ** 0.5)] * 2)  # all codes, used or not
    assert_close(first_stage.pixels(codebook[entries], entries), recorded["vqgan.recon_from_quant"])


@RECORDED
def test_recorded_chains_are_drawn_again(folder: Path) -> None:
    model, recorded = load(folder), load_file(folder / "expected.safetensors")
    cond = recorded.get("cond")
    assert model.schedule.betas == pytest.approx((1 / 3, 1 / 2, 1) if cond is None else (0.37, 1))
    for t, stage in enumerate(model.stages, 1):
        assert_close(stage(recorded[f"stage{t}.x"], recorded[f"stage{t}.c"], cond), recorded[f"stage{t}.logits"])
    known = {"known": recorded["chain.known"], "keep": recorded["chain.keep_mask"].bool()}
    for kind, kept in (("free", {}), ("masked", known)):
        start = recorded["chain.start"]
        tokens = model.sample(len(start), start=start, cond=cond, top_k=1, **kept)
        assert torch.equal(tokens, recorded[f"chain.{kind}.after_stage1"])
        assert_close(model.first_stage.decode(tokens), recorded[f"chain.{kind}.image"])
        for t in range(1, model.schedule.stages):  # a chain that ends before stage t
            start, strength = recorded[f"chain.{kind}.after_stage{t + 1}"], 1 - model.schedule.alphacum(t)
            after = model.sample(len(start), start=start, cond=cond, top_k=1, strength=strength, **kept)
            assert torch.equal(after, tokens)


def test_device_and_dtype_are_those_that_there_are() -> None:
    for name in ("coffee", "cuda:999"):
        with pytest.raises(ValueError, match=f"device is '{name}', expected one that this machine has"):
            load(CLASS_MODEL, device=name)
    with pytest.raises(ValueError, match="'int8', expected one of float16"):
        load(CLASS_MODEL, dtype="int8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLASS_MODEL, tmp_path / "model"))


def resave(path: Path, change: Callable[[State], Any] = lambda state: None, key: str = "state_dict") -> None:
    """Rewrites a checkpoint with a changed state_dict; as plain tensors, which any reader could load."""
    state = {name: tensor.clone() for name, tensor in read_state_dict(path).items()}
    change(state)
    torch.save({key: state} if key else state, path)


def test_a_bare_state_dict_in_a_folder_inside_will_do(copy: Path, tmp_path: Path) -> None:
    resave(copy / "scale1.ckpt", key="")
    (tmp_path / "outer" / "other").mkdir(parents=True)
    copy.rename(tmp_path / "outer" / "zipped")
    loaded = load(tmp_path / "outer")
    assert loaded.about.name == "outer" and same_weights(loaded, load(CLASS_MODEL))


def test_averaged_weights_are_taken_where_there_are_some(copy: Path) -> None:
    def raw_only(state: State) -> None:
        for name in [name for name in state if name.startswith("transformer_ema.")]:
            del state[name]

    tensors = read_state_dict(CLASS_MODEL / "scale2.ckpt")
    averaged, raw = tensors["transformer_ema.tok_embweight"], tensors["transformer.tok_emb.weight"]
    assert torch.equal(load(copy).stages[1].decoder.token_embedding.weight, averaged) and not torch.equal(averaged, raw)
    resave(copy / "scale2.ckpt", raw_only)
    assert torch.equal(load(copy).stages[1].decoder.token_embedding.weight, raw)


def test_what_is_missing_is_named(copy: Path, tmp_path: Path) -> None:
    for name, said in (
        ("scale2.yaml", "is missing, expected in a folder without a published model's name"),
        ("scale2.ckpt", "is missing, expected scale1.ckpt to scale2.ckpt"),
        ("scale1.ckpt", "holds no model"),
    ):
        aside = (copy / name).rename(tmp_path / "aside")
        assert_refused(copy, str(copy), name, said)
        aside.rename(copy / name)
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", str(tmp_path), "expected config.json", "scale1.ckpt")
    assert_refused(CLASS_MODEL / "scale1.ckpt", "scale1.ckpt is no published model, no folder")
    (tmp_path / "cats_3_scales").mkdir()
    assert_refused(tmp_path / "cats_3_scales", "lacks scale1.ckpt", "https://ommer-lab.com/files/cats_3_scales.zip")


def test_a_published_name_needs_no_configuration_but_its_own_files(copy: Path, tmp_path: Path) -> None:
    for path in copy.glob("*.yaml"):
        path.unlink()
    copy.rename(tmp_path / "cats_3_scales")
    assert_refused(tmp_path / "cats_3_scales", "is of 2 stages, but cats_3_scales has 3")
    (tmp_path / "cats_3_scales").rename(tmp_path / "ffhq_2_scales_custom")
    assert_refused(tmp_path / "ffhq_2_scales_custom", "scale1.ckpt", "expected [", "first_stage_model.encoder")


def test_descriptions_that_do_not_fit_are_refused(copy: Path, tmp_path: Path) -> None:
    text, described = written(tmp_path / "text", TINY / "text_cond"), copy / "scale2.yaml"
    described.write_text(described.read_text().replace("num_res_blocks: 1", "num_res_blocks: 2"))
    assert_refused(copy, "scale2.yaml has another first stage or conditioner than scale1.yaml")
    described = text / "scale1.yaml"
    described.write_text(described.read_text().replace("enc_max_seq_len: 24", "enc_max_seq_len: 17"))
    assert_refused(text, "a longest sequence of 17, expected more than t and the 16 image tokens")


@pytest.mark.parametrize(
    ("stage", "change", "reason"),
    [
        (2, lambda s: s.pop("transformer_ema.ln_fbias"), "lacks the tensor transformer_ema.ln_fbias"),
        (2, lambda s: s.update({"transformer.ln_f.bias": torch.zeros(31)}), "ln_f.bias of shape [31], expected [32]"),
        (2, lambda s: s.update({"transformer_ema.ln_fbias": torch.zeros(31)}), "ln_fbias of shape [31], expected [32]"),
        (2, lambda s: s.update({"transformer_ema.ln_fbias": torch.zeros(32).long()}), "expected floating point"),
        (2, lambda s: s.update({"loss.w": torch.zeros(1)}), "has the tensor loss.w"),
        (2, lambda s: s.pop("alphats"), "lacks the tensor alphats"),
        (2, lambda s: s.update(alphats=torch.tensor([1, 0.5, 0])), "expected scale1.ckpt's"),
        (1, lambda s: s.update(alphats=torch.tensor([1, 0.63, 0.1])), "betas are"),
        (1, lambda s: s.update(alphats=torch.zeros(2, 2)), "alphats of shape [2, 2]"),
        (1, lambda s: s["first_stage_model.quantize.used"].fill_(3), "ascending"),
        (1, lambda s: s.pop("first_stage_model.quantize.used"), "lacks the tensor first_stage_model.quantize.used"),
    ],
)
def test_what_does_not_fit_is_named(copy: Path, stage: int, change: Callable[[State], Any], reason: str) -> None:
    resave(copy / f"scale{stage}.ckpt", change)
    assert_refused(copy, str(copy), reason)


def written(folder: Path, source: Path, betas: tuple[float, ...] = (0.37, 1.0), **changes: int) -> Path:
    """A recorded model with other random weights, the same for the text model; changes: of its settings' numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for t in (1, 2):
        path, text = folder / f"scale{t}.yaml", (source / f"scale{t}.yaml").read_text(encoding="utf-8")
        for name, number in changes.items():
            text = re.sub(rf"\b{name}: \d+", f"{name}: {number}", text)
        path.write_text(text, encoding="utf-8")
        write_checkpoint(path.with_suffix(".ckpt"), scale_tensors(read_stage_yaml(path), t, betas))
    return folder


def test_text_models_compute_what_the_original_does(tmp_path: Path) -> None:
    expected = load_file(TINY / "text_cond" / "expected.safetensors")
    published = load(written(tmp_path / "published", TINY / "text_cond"))
    published.save_pretrained(tmp_path)
    for model in (published, load(tmp_path)):
        assert model.conditioner.length == expected["cond"].shape[1] == 7
        for t, stage in enumerate(model.stages, 1):
            logits = stage(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"])
            assert_close(logits, expected[f"stage{t}.logits"])
            other = stage(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"].flip(1))
            assert (logits - other).abs().max() > 1e-2  # the text is read
    assert published.sample(2, cond=torch.randint(100, (2, 7)), seed=0).shape == (2, 16)
    with pytest.raises(InputError, match="knows 100 tokens; prompts take all 49408"):
        Pipeline(published).generate("a red house")


def test_a_prompt_is_read_where_all_of_clips_tokens_are_known(tmp_path: Path) -> None:
    pipe = Pipeline(load(written(tmp_path, TINY / "text_cond", enc_num_tokens=49408, input_vocab_size=49408)))
    for prompt, notes in (("a red house", 0), ("a red house by the sea", 1)):  # 5 words and a beginning and an end
        *_, last = pipe.generate(prompt, seed=0)
        assert last.kind == "result" and len(last.notes) == notes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "ffhq_4_scales_geometric"
    write_tiny(folder)
    return folder


def test_a_conversion_is_the_same_model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / "source" / tiny.name))
    convert(source, tmp_path / "short", "bfloat16", replace=True)
    stored = load_file(tmp_path / "short" / "model.safetensors").values()
    assert {tensor.dtype for tensor in stored} == {torch.bfloat16, torch.int64}
    assert not list(source.glob("*.ckpt"))
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 30_000)
    convert(tiny, tmp_path / "out")
    assert same_weights(load(tmp_path / "out"), load(tiny))
    assert {path.name for path in tmp_path.iterdir()} == {"source", "short", "out"}
    assert len(list(tiny.glob("*.ckpt"))) == 4
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    assert names == {"config.json", "README.md", "model.safetensors.index.json"}


def test_a_published_class_model_knows_its_classes_by_name(tmp_path: Path) -> None:
    """Where it has as many as ImageNet; before and after it is converted."""
    known = {"tench": 0, "Golden Retriever": 207, "crane (bird)": 134, "toilet paper": 999, "207": 207}
    sizes = {"enc_num_tokens": 1000, "input_vocab_size": 1000}
    source = written(tmp_path / "cin_5_scales_custom", CLASS_MODEL, (1 / 2, 1.0), **sizes)
    convert(source, tmp_path / "out")
    for folder in (source, tmp_path / "out"):
        assert load(folder).conditioner.encode(list(known)).tokens.flatten().tolist() == list(known.values())
    assert "1000 kinds of things (ImageNet) at 16 × 16 pixels" in (tmp_path / "out" / "README.md").read_text()
    few = written(tmp_path / "few" / "cin_5_scales_custom", CLASS_MODEL, (1 / 2, 1.0))
    assert load(few).classes[:2] == ("0", "1")


def test_a_killed_conversion_leaves_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert run_in_fork(lambda: convert(tiny, tmp_path / "out")) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    convert(tiny, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and same_weights(load(tmp_path / "out"), load(tiny))


def test_other_folders_are_never_overwritten_and_a_file_with_code_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="holds thesis.txt; choose a new or empty folder"):
            convert(tiny, out)
    source = Path(shutil.copytree(tiny, tmp_path / tiny.name))
    torch.save({"state_dict": {"w": print}}, source / "scale3.ckpt")
    with pytest.raises(WeightsError, match="scale3.ckpt"):
        convert(source, tmp_path / "out", replace=True)
    assert not (tmp_path / "out").exists() and len(list(source.glob("*.ckpt"))) == 4
