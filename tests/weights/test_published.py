"""The published layout against outputs recorded from the original implementation (small random weights)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import TINY, scale_tensors, write_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from imagebart import Pipeline
from imagebart.core.errors import InputError, WeightsError
from imagebart.weights.convert import read_state_dict
from imagebart.weights.registry import read_stage_yaml

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL, assert_refused, load, same_weights

TOLERANCE = 1e-4


class Recorded:
    """A model and what the original computed with its weights."""

    def __init__(self, folder: Path) -> None:
        self.model = load(folder)
        self.expected = load_file(folder / "expected.safetensors")
        self.compared: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.compared.add(key)
        return self.expected[key]

    @property
    def cond(self) -> Tensor | None:
        self.compared.add("cond")
        return self.expected.get("cond")


@pytest.fixture(scope="module", params=[CLASS_MODEL, RESIDUAL_MODEL], ids=lambda folder: folder.name)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < TOLERANCE


class TestRecordedOutputs:
    def test_latents_and_nearest_codes(self, recorded: Recorded) -> None:
        first_stage = recorded.model.first_stage
        latents = first_stage.latents(recorded["vqgan.image"])
        assert_close(latents.permute(0, 3, 1, 2), recorded["vqgan.prequant"])
        codebook = first_stage.quantize.embedding.weight
        nearest = torch.cdist(latents.flatten(1, 2), codebook[None]).argmin(-1)
        assert torch.equal(nearest, recorded["vqgan.full_indices"])

    def test_tokens(self, recorded: Recorded) -> None:
        first_stage, entries = recorded.model.first_stage, recorded["vqgan.full_indices"]
        used = first_stage.quantize.used
        tokens = first_stage.encode(recorded["vqgan.image"])
        in_use = torch.isin(entries, used)
        assert 0.3 < in_use.float().mean() < 1  # both cases occur
        assert torch.equal(used[tokens][in_use], entries[in_use])

    def test_decoding(self, recorded: Recorded) -> None:
        first_stage = recorded.model.first_stage
        assert_close(first_stage.decode(recorded["vqgan.tokens"]), recorded["vqgan.decoded"])
        entries = recorded["vqgan.full_indices"]  # all codes, used or not
        side = round(entries.shape[1] ** 0.5)
        entries = entries.unflatten(1, (side, side))
        decoded = first_stage.pixels(first_stage.quantize.embedding.weight[entries], entries)
        assert_close(decoded, recorded["vqgan.recon_from_quant"])

    def test_logits(self, recorded: Recorded) -> None:
        for t, stage in enumerate(recorded.model.stages, 1):
            x, c = recorded[f"stage{t}.x"], recorded[f"stage{t}.c"]
            assert_close(stage(x, c, recorded.cond), recorded[f"stage{t}.logits"])

    @pytest.mark.parametrize("kind", ["free", "masked"])
    def test_chains(self, recorded: Recorded, kind: str) -> None:
        model, start = recorded.model, recorded["chain.start"]
        keep = recorded["chain.keep_mask"].bool()
        kept: dict[str, Any] = {"known": recorded["chain.known"], "keep": keep} if kind == "masked" else {}
        tokens = model.sample(len(start), start=start, cond=recorded.cond, top_k=1, **kept)
        assert torch.equal(tokens, recorded[f"chain.{kind}.after_stage1"])
        assert_close(model.first_stage.decode(tokens), recorded[f"chain.{kind}.image"])
        for t in range(1, model.schedule.stages):  # a chain that ends before stage t
            after = model.sample(
                len(start), start=recorded[f"chain.{kind}.after_stage{t + 1}"], cond=recorded.cond, top_k=1,
                strength=1 - model.schedule.alphacum(t), **kept,
            )  # fmt: skip
            assert torch.equal(after, tokens)

    def test_every_recorded_output_was_compared(self, recorded: Recorded) -> None:
        assert recorded.compared >= set(recorded.expected)


def test_what_the_models_are() -> None:
    classes, residual = load(CLASS_MODEL), load(str(RESIDUAL_MODEL))
    assert [stage.config.kind for stage in classes.stages] == ["encoder_decoder", "decoder_only"]
    assert [stage.config.kind for stage in residual.stages] == ["residual", "residual", "decoder_only"]
    assert classes.schedule.betas == pytest.approx((0.37, 1))
    assert residual.schedule.betas == pytest.approx((1 / 3, 1 / 2, 1))
    assert (classes.conditioner.kind, residual.conditioner.kind) == ("class", "none")
    assert classes.conditioner.encode(["99"]).tokens.tolist() == [[99]]
    assert classes.about.name == "class_cond_custom"
    assert not any(p.requires_grad for p in classes.parameters())


def test_the_averaged_weights_are_taken() -> None:
    tensors = read_state_dict(CLASS_MODEL / "scale2.ckpt")
    ours = load(CLASS_MODEL).stages[1].decoder.token_embedding.weight
    assert torch.equal(ours, tensors["transformer_ema.tok_embweight"])
    assert not torch.equal(ours, tensors["transformer.tok_emb.weight"])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtype(dtype: str) -> None:
    model, exact = load(CLASS_MODEL, dtype=dtype), load(CLASS_MODEL).state_dict()
    for name, ours in model.state_dict().items():
        expected = exact[name].dtype if name.endswith("used") else getattr(torch, dtype)
        assert ours.dtype == expected and torch.equal(ours, exact[name].to(expected))


def test_device_and_dtype_are_those_that_there_are() -> None:
    assert load(CLASS_MODEL, device="cpu").device.type == "cpu"
    for name in ("coffee", "cuda:999"):
        with pytest.raises(ValueError, match=f"device is '{name}', expected one that this machine has"):
            load(CLASS_MODEL, device=name)
    for name in ("int4", "int8"):
        with pytest.raises(ValueError, match=f"'{name}', expected one of float16"):
            load(CLASS_MODEL, dtype=name)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLASS_MODEL, tmp_path / "model"))


def resave(path: Path, change: Callable[[dict[str, Any]], None], key: str = "state_dict") -> None:
    """Rewrites a checkpoint with a changed state_dict; as plain tensors, which any reader could load."""
    state = {name: tensor.clone() for name, tensor in read_state_dict(path).items()}
    change(state)
    torch.save({key: state} if key else state, path)


class TestFolders:
    def test_files_may_lie_in_a_folder_inside(self, copy: Path, tmp_path: Path) -> None:
        outer = tmp_path / "outer"
        (outer / "other").mkdir(parents=True)
        copy.rename(outer / "zipped")
        assert load(outer).about.name == "outer"

    def test_a_bare_state_dict_will_do(self, copy: Path) -> None:
        resave(copy / "scale1.ckpt", lambda state: None, key="")
        assert same_weights(load(copy), load(CLASS_MODEL))

    def test_raw_weights_serve_where_nothing_was_averaged(self, copy: Path) -> None:
        def raw_only(state: dict[str, Any]) -> None:
            for name in [name for name in state if name.startswith("transformer_ema.")]:
                del state[name]

        resave(copy / "scale2.ckpt", raw_only)
        ours = load(copy).stages[1].decoder.token_embedding.weight
        assert torch.equal(ours, read_state_dict(CLASS_MODEL / "scale2.ckpt")["transformer.tok_emb.weight"])

    @pytest.mark.parametrize("name", ["scale1.yaml", "scale2.yaml", "scale2.ckpt", "scale1.ckpt"])
    def test_missing_files_are_named(self, copy: Path, name: str) -> None:
        (copy / name).unlink()
        assert_refused(copy, str(copy), name)

    def test_a_published_name_needs_no_configuration_but_its_own_files(self, copy: Path, tmp_path: Path) -> None:
        for path in copy.glob("*.yaml"):
            path.unlink()
        copy.rename(tmp_path / "cats_3_scales")
        assert_refused(tmp_path / "cats_3_scales", "is of 2 stages, but cats_3_scales has 3")
        (tmp_path / "cats_3_scales").rename(tmp_path / "ffhq_2_scales_custom")
        assert_refused(tmp_path / "ffhq_2_scales_custom", "scale1.ckpt", "expected [", "first_stage_model.encoder")

    def test_an_empty_folder_or_a_file_is_no_model(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, str(tmp_path), "expected config.json", "scale1.ckpt")
        assert_refused(CLASS_MODEL / "scale1.ckpt", "scale1.ckpt is no published model, no folder")


class TestTensors:
    CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
        "missing": (
            lambda s: s.pop("transformer.blocks.1.attn.key.bias"),
            "lacks the tensor transformer.blocks.1.attn.key.bias, expected it with shape [32]",
        ),
        "missing average": (
            lambda s: s.pop("transformer_ema.blocks1attnkeybias"),
            "lacks the tensor transformer_ema.blocks1attnkeybias",
        ),
        "wrong shape": (
            lambda s: s.update({"transformer.head.weight": torch.zeros(47, 32)}),
            "transformer.head.weight of shape [47, 32], expected [48, 32]",
        ),
        "wrong shape of an average": (
            lambda s: s.update({"transformer_ema.headweight": torch.zeros(47, 32)}),
            "transformer_ema.headweight of shape [47, 32], expected [48, 32]",
        ),
        "unknown": (lambda s: s.update({"transformer.extra": torch.zeros(1)}), "has the tensor transformer.extra"),
        "unknown part": (lambda s: s.update({"loss.w": torch.zeros(1)}), "has the tensor loss.w"),
        "whole numbers": (
            lambda s: s.update({"transformer_ema.ln_fbias": torch.zeros(32, dtype=torch.int64)}),
            "expected floating point numbers",
        ),
        "no schedule": (lambda s: s.pop("alphats"), "lacks the tensor alphats"),
        "another schedule": (lambda s: s.update(alphats=torch.tensor([1, 0.5, 0])), "expected scale1.ckpt's"),
        "odd start": (
            lambda s: s.update(sos_token=torch.tensor([100])),
            "stage 2 has the start_token 100, expected one of 100",
        ),
    }

    @pytest.mark.parametrize("name", CHANGES)
    def test_what_does_not_fit_is_named(self, copy: Path, name: str) -> None:
        change, reason = self.CHANGES[name]
        resave(copy / "scale2.ckpt", change)
        assert_refused(copy, str(copy), reason)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda s: s.update(alphats=torch.tensor([1, 0.63, 0.1])), "betas are"),
            (lambda s: s.update(alphats=torch.zeros(2, 2)), "alphats of shape [2, 2]"),
            (lambda s: s.update(alphats=torch.tensor([1, torch.nan, 0])), "betas are"),
            (lambda s: s["first_stage_model.quantize.used"].fill_(3), "ascending"),
            (lambda s: s["first_stage_model.quantize.used"][-1].fill_(64), "from 0 to 63"),
            (lambda s: s.pop("first_stage_model.quantize.used"), "lacks the tensor first_stage_model.quantize.used"),
        ],
    )
    def test_schedule_and_codes_are_checked(self, copy: Path, change: Callable[[Any], Any], reason: str) -> None:
        resave(copy / "scale1.ckpt", change)
        assert_refused(copy, str(copy), reason)

    def test_code_in_a_later_file_is_refused(self, copy: Path) -> None:
        torch.save({"state_dict": {"w": print}}, copy / "scale2.ckpt")
        assert_refused(copy, str(copy / "scale2.ckpt"), "print")


RECORDED = TINY / "text_cond"


def written(folder: Path, **changes: int) -> Path:
    """The recorded text model with random weights; changes: of its settings' numbers."""
    shutil.copytree(RECORDED, folder, dirs_exist_ok=True)
    for t in (1, 2):
        path = folder / f"scale{t}.yaml"
        for name, number in changes.items():
            path.write_text(re.sub(rf"\b{name}: \d+", f"{name}: {number}", path.read_text()))
        write_checkpoint(path.with_suffix(".ckpt"), scale_tensors(read_stage_yaml(path), t, (0.37, 1.0)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("text"))


def test_logits_are_the_originals(folder: Path, tmp_path: Path) -> None:
    expected = load_file(RECORDED / "expected.safetensors")
    published = load(folder)
    published.save_pretrained(tmp_path)
    for model in (published, load(tmp_path)):
        assert model.conditioner.length == expected["cond"].shape[1] == 7
        for t, stage in enumerate(model.stages, 1):
            logits = stage(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"])
            assert (logits - expected[f"stage{t}.logits"]).abs().max() < 1e-4
            other = stage(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected["cond"].flip(1))
            assert (logits - other).abs().max() > 1e-2  # the text is read


def test_it_samples(folder: Path) -> None:
    model = load(folder)
    cond = torch.randint(100, (2, 7))
    assert model.sample(2, cond=cond, seed=0).shape == (2, 16)
    with pytest.raises(InputError, match="knows 100 tokens; prompts take all 49408"):
        Pipeline(model).generate("a red house")


def test_a_prompt_is_read_where_all_of_clips_tokens_are_known(tmp_path: Path) -> None:
    pipe = Pipeline(load(written(tmp_path, enc_num_tokens=49408, input_vocab_size=49408)))
    *_, last = pipe.generate("a red house", seed=0)
    assert last.kind == "result" and last.notes == []
    *_, last = pipe.generate("a red house by the sea", seed=0)
    assert len(last.notes) == 1  # 7 tokens are 5 words with a beginning and an end


def test_a_text_without_room_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "scale1.yaml"
    path.write_text(path.read_text().replace("enc_max_seq_len: 24", "enc_max_seq_len: 17"))
    with pytest.raises(WeightsError, match="a longest sequence of 17, expected more than t and the 16 image tokens"):
        load(tmp_path)
