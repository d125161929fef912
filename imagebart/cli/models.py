"""`imagebart list`, `download` and `convert`: the published models on their way to this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from imagebart.cli.options import Model, command
from imagebart.core.errors import WeightsError
from imagebart.core.settings import DEFAULT_MODEL

app = typer.Typer()


@command(app, "list")
def list_models() -> None:
    """The published models, their sizes, which are here."""
    from imagebart.weights.registry import MODELS, model_folder

    print(f"{'name':23}  {'stages':6}  {'download':8}  {'memory':7}  {'folder':40}  domain")
    for model in MODELS.values():
        sizes = f"{model.download_gb:5} GB  {model.memory_gb:4} GB"
        folder = model_folder(model.name)
        here = str(folder) if folder.is_dir() else "not here"
        print(f"{model.name:23}  {model.stages:6}  {sizes}  {here:40}  {model.domain}")


@command(app)
def download(
    name: Annotated[str, typer.Argument(help="As `list` has it.")],
    source: Annotated[str | None, typer.Option("--from", help="Address of the zip in place of the authors'.")] = None,
) -> None:
    """Fetch a published model, and try it."""
    from imagebart.weights.download import download as fetch_model

    folder = fetch_model(name, source)
    print(folder)
    print(f"Self-check: {check_model(folder)}", file=sys.stderr)


def check_model(folder: str | Path) -> str:
    """What a model makes of a shipped image; raises WeightsError where its mean color restores more of the image."""
    from imagebart.imaging import files, masks
    from imagebart.model import locate
    from imagebart.models.vqgan import psnr
    from imagebart.pipeline import Pipeline

    pipe, completed = Pipeline.from_pretrained(folder), Path(f"{folder}.png")
    first_stage, size = pipe.model.first_stage, (pipe.image_size, pipe.image_size)
    image = files.load_image(locate("avatars") / "examples" / "6-pink-beanie.png").resize(size)
    pixels = files.to_tensor(image)
    tokens = first_stage.encode(pixels)
    quality, plain = (float(psnr(made, pixels)) for made in (first_stage.decode(tokens), pixels.mean((2, 3), True)))
    *_, event = pipe.edit(image, masks.preset("upper half", size), pipe.classes[0] if pipe.classes else None, seed=0)
    files.save_image(event.image, completed)
    outcome = f"{len(tokens.unique())} codes, reconstruction {quality:.1f} dB, completion in {completed}"
    if quality <= plain:
        raise WeightsError(f"The self-check failed ({outcome}; its mean color has {plain:.1f} dB): report it.")
    return outcome


@command(app)
def convert(
    source: Annotated[str, typer.Argument(help="A name as `list` has it, or a folder with scale1.ckpt and so on.")],
    out: Annotated[
        Path | None, typer.Option(help="The new folder; of a published name, where it is looked for.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the stored numbers: float32, bfloat16 or float16.")] = "float32",
    replace: Annotated[bool, typer.Option("--replace", help="Delete the published files afterwards.")] = False,
) -> None:
    """Make safetensors of a published model's files."""
    from imagebart.weights.convert import convert as convert_files
    from imagebart.weights.registry import converted_folder, get_model, published_folder

    folder = Path(source)
    if not folder.is_dir():
        folder = published_folder(get_model(source).name)
        out = out or converted_folder(source)
    if out is None:
        raise ValueError(f"{source} is a folder: say with --out where the new one is to be")
    convert_files(folder, out, dtype, replace)
    print(out)


@command(app)
def export(out: Annotated[Path, typer.Option(help="The folder of the graphs.")], model: Model = DEFAULT_MODEL) -> None:
    """Write a model's networks as ONNX graphs, which need no PyTorch."""
    import torch

    from imagebart.pipeline import Pipeline
    from imagebart.weights.onnx_export import Graph, export_graphs, graphs
    from imagebart.worlds import attribute_classifier, things

    pipe = Pipeline.from_pretrained(model)
    made_of = graphs(pipe.model)
    for name, side in (("classifier", attribute_classifier.SIZE), ("detector", things.SIDE)):  # of a scorer
        if network := getattr(pipe.scorer, name, None):
            made_of[name] = Graph(network, (torch.rand(2, 3, side, side),), ((0,),))
    for path in export_graphs(made_of, out):
        print(path)
