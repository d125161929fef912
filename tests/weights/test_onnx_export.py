"""A model's ONNX graphs, run with NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from imagebart.model import ImageBART
from imagebart.weights.onnx_export import export_graphs, graphs
from tests.helpers.tiny_models import tiny_model, tiny_staged_model


def draw(folder: Path, words: np.ndarray, x_t: np.ndarray, window: np.ndarray, model: ImageBART) -> np.ndarray:
    """The likeliest x_0 of some tokens of x_t, int64 [B, n], token by token, and the image that all are."""
    sessions = {path.stem: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")}

    def run(name: str, *given: Any) -> list[np.ndarray]:
        names = [one.name for one in sessions[name].get_inputs()]
        return sessions[name].run(None, dict(zip(names, given, strict=True)))

    assert model.denoiser is not None
    shape, (batch, count) = model.denoiser.config.decoder, x_t.shape
    levels, hints = np.ones(x_t.shape, np.float32), np.zeros((*x_t.shape, shape.width), np.float32)
    (prompt,) = run("text_encoder", words)
    prefix, added, places, cross, evidence, _ = run("step_encoder", x_t, levels, 0 * levels, window, prompt, hints)
    kept = np.zeros((shape.depth, 2, batch, shape.heads, shape.positions, shape.head_size), np.float32)
    tokens, begin = prefix, 0
    while len(tokens[0]) < len(prefix[0]) + count:
        positions = np.arange(begin, len(tokens[0]))[None].repeat(batch, 0)
        part = np.s_[:, begin : len(tokens[0])]
        logits, new = run("step_decoder", tokens[part], added[part], places[part], positions, kept, cross)
        kept[:, :, :, :, begin : len(tokens[0])] = new
        begin = len(tokens[0])
        token = (logits[:, -1] + evidence[:, begin - len(prefix[0])]).argmax(-1)
        tokens = np.concatenate([tokens, token[:, None]], 1)
    return tokens[:, len(prefix[0]) :]


def check(model: ImageBART, folder: Path) -> None:
    torch.manual_seed(1)
    x_t, words = (
        torch.randint(model.vocab_size, (2, model.tokens)),
        model.conditioner.encode(["red", "a blue one"]).tokens,
    )
    window = torch.arange(model.tokens).expand(2, -1).contiguous()
    found = draw(folder, words.numpy(), x_t.numpy(), window.numpy(), model)
    expected = model.sample(2, words, start=x_t, top_k=1, scales=1, guidance=1.0, corrector_steps=0)
    assert np.array_equal(found, expected.numpy())


@pytest.mark.slow
def test_graphs_draw_what_the_model_draws(tmp_path: Path) -> None:
    model = tiny_model("text")
    paths = export_graphs(graphs(model), tmp_path / "graphs")
    assert [path.stem for path in paths] == list(graphs(model)) and all(path.stat().st_size < 10**6 for path in paths)
    check(model, tmp_path / "graphs")
    decoder = onnxruntime.InferenceSession(tmp_path / "graphs" / "image_decoder.onnx")
    encoder = onnxruntime.InferenceSession(tmp_path / "graphs" / "image_encoder.onnx")
    tokens = torch.randint(model.vocab_size, (3, model.tokens))
    (images,) = decoder.run(None, {decoder.get_inputs()[0].name: tokens.numpy()})
    torch.testing.assert_close(torch.from_numpy(images), model.first_stage.decode(tokens), rtol=1e-4, atol=1e-4)
    (again,) = encoder.run(None, {encoder.get_inputs()[0].name: images})
    assert np.array_equal(again, model.first_stage.encode(torch.from_numpy(images)).numpy())


def test_a_model_of_stages_has_no_graphs() -> None:
    with pytest.raises(ValueError, match="graphs of models with a denoiser"):
        graphs(tiny_staged_model("text"))
