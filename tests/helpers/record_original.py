"""Records what the original's own networks compute for a text model: no weights of one were published.

`python tests/helpers/record_original.py CHECKOUT`, a checkout of github.com/CompVis/imagebart, writes
tests/fixtures/tiny/text_cond/expected.safetensors. The weights are those that `published_files` makes, under their
published names, which the original's modules have to take without exception.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import torch
import yaml
from published_files import TINY, scale_tensors
from safetensors.torch import save_file
from torch import Tensor

from imagebart.weights.registry import read_stage_yaml

FOLDER = TINY / "text_cond"
BETAS = (0.37, 1.0)
COND, TOKENS, CODES, ROWS = 7, 16, 48, 2


def original_modules(checkout: Path) -> tuple[Any, Any]:
    """The original's XTransformer and GPT; a function that it asks transformers for is gone, and not needed."""
    import transformers

    transformers.top_k_top_p_filtering = None
    for name in [name for name in sys.modules if name.split(".")[0] == "imagebart"]:
        del sys.modules[name]
    for name in ("imagebart", "imagebart.modules", "imagebart.modules.transformer", "imagebart.modules.xtransformers"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    from imagebart.modules.transformer.mingpt import GPT
    from imagebart.modules.xtransformers.x_transformer import XTransformer

    return XTransformer, GPT


def averaged(t: int, names: list[str]) -> dict[str, Tensor]:
    """The averaged weights of stage t, and the raw file's constants, by the names of the original's module."""
    planned = scale_tensors(read_stage_yaml(FOLDER / f"scale{t}.yaml"), t, BETAS)
    state = {}
    for name in names:
        short = f"transformer_ema.{name.replace('.', '')}"
        if short in planned:
            state[name] = planned[short]
    return state


def logits(network: Any, t: int, x: Tensor, c: Tensor, cond: Tensor) -> Tensor:
    """As the original's `forward` of a DenoisingXTransformer or a DecoderOnlyDenoiser has it."""
    scale = torch.full((ROWS, 1), t)
    if t == 1:
        start = torch.zeros(ROWS, 1, dtype=torch.long)
        return network(torch.cat([scale, cond, c], 1), torch.cat([start, x], 1)[:, :-1])[0]
    prefix = torch.cat([scale, cond], 1)
    return network(torch.cat([prefix, x], 1)[:, :-1])[0][:, prefix.shape[1] - 1 :]


@torch.no_grad()
def main(checkout: Path) -> None:
    states = {}
    draw = torch.Generator().manual_seed(0)
    cond = torch.randint(100, (ROWS, COND), generator=draw)
    recorded = {"cond": cond}
    settings = {t: yaml.safe_load((FOLDER / f"scale{t}.yaml").read_text(encoding="utf-8")) for t in (1, 2)}
    for t in (1, 2):
        planned = scale_tensors(read_stage_yaml(FOLDER / f"scale{t}.yaml"), t, BETAS)
        names = [name.removeprefix("transformer.") for name in planned if name.startswith("transformer.")]
        states[t] = averaged(t, names)
    modules = original_modules(checkout)
    for t, module in zip((1, 2), modules, strict=True):
        network = module(**settings[t]["model"]["params"]["transformer_config"]["params"]).eval()
        missing, unknown = network.load_state_dict(states[t], strict=False)
        assert not unknown and all(name.endswith("attn.mask") for name in missing), (missing, unknown)
        x, c = (torch.randint(CODES, (ROWS, TOKENS), generator=draw) for _ in range(2))
        computed = logits(network, t, x, c, cond).contiguous()
        recorded |= {f"stage{t}.x": x, f"stage{t}.c": c, f"stage{t}.logits": computed}
    save_file(recorded, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
