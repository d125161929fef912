"""`imagebart evaluate ...`: how good a model is, on images that were held back and by the paper's measures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagebart.cli.options import Data, Sampling, command
from imagebart.core.errors import InputError

if TYPE_CHECKING:
    from imagebart.evaluation.image_sampler import ImageSampler


app = typer.Typer(help="Measure a model.")


@command(app)
def folder(
    model: Annotated[Path, typer.Option(help="The model's folder.")],
    sampling: Sampling,
    data: Data = None,
    samples: Annotated[int, typer.Option(min=4, help="Held-back images of each measure.")] = 200,
    test_steps: Annotated[int, typer.Option(min=1, help="Steps of the two-sample test.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the first sample.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images sampled at once.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Where to write the numbers as JSON.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Where to write a sheet of images.")] = None,
) -> None:
    """The table of a model of your own images, on those that were held back."""
    from imagebart.evaluation.folder import evaluate_folder, folder_sheet, make_images, spread
    from imagebart.evaluation.metrics import report
    from imagebart.imaging.files import save_image
    from imagebart.training.data import INDEX, stored_dataset

    sampler = load_image_sampler(model, sampling, batch)
    trained_on = model / "run" / "pictures"
    if data is None and not (trained_on / INDEX).exists():
        raise InputError(f"{model} has no images with it (run/pictures); give --data.")
    # Of a folder, the same images are held back.
    store = stored_dataset(data or str(trained_on), sampler.size, model / "evaluation" / "pictures").store
    held = spread(store.index.numbers(held_out=True), samples)
    images = store.images(held)
    made = make_images(sampler, images, [store.index.texts[number] for number in held], seed)
    about = {"model": str(model), "samples": len(held), "seed": seed}
    report(evaluate_folder(images, made, test_steps, seed), about, out)
    if sheet:
        save_image(folder_sheet(images, made), sheet, optimize=True)


def load_image_sampler(model: str | Path, sampling: Sampling, batch: int, device: str = "cpu") -> "ImageSampler":
    """A model with its own sampling settings, but for those that were given."""
    from imagebart.evaluation.image_sampler import ImageSampler
    from imagebart.model import ImageBART

    loaded = ImageBART.from_pretrained(model, device)
    return ImageSampler(loaded, loaded.about.sampling.replace(**sampling), batch)


@command(app)
def paper(
    model: Annotated[str, typer.Option(help="A published model's name, or a folder.")],
    data: Annotated[Path, typer.Option(help="Folder of real images.")],
    features: Annotated[str, typer.Option(help="Their features: Inception's .pth file, or a classifier's folder.")],
    out: Annotated[Path, typer.Option(help="Folder for samples, which are kept, and the figures.")],
    sampling: Sampling,
    samples: Annotated[int, typer.Option(help="How many samples; the paper has 50,000.", min=1)] = 1000,
    images: Annotated[int, typer.Option(help="Real ones, at most.", min=1)] = 1000,
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt or class a line; else all classes.")] = None,
    best_of: Annotated[int, typer.Option(help="Sample so many for each that is kept.", min=1)] = 1,
    scorer: Annotated[str | None, typer.Option(help="What ranks, or scores a text model: folder or Hub name.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first sample.")] = 0,
    batch: Annotated[int, typer.Option(help="Images sampled at once.", min=1)] = 8,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """FID, Inception score, precision, recall, speed and so on, beside the paper's figures."""
    from imagebart.evaluation import paper as measures
    from imagebart.evaluation.metrics import report
    from imagebart.imaging.files import save_image
    from imagebart.worlds.ranking import load_scorer

    if best_of > 1 and scorer is None:
        raise InputError(f"The best of {best_of} takes a --scorer to rank them.")
    real, network = measures.images_in(data, images), measures.load_network(features)
    sampler = load_image_sampler(model, sampling, batch, device)
    texts = measures.load_prompts(prompts, sampler.model)
    ranking = load_scorer(scorer, sampler.model) if scorer else None
    study = measures.PaperStudy(sampler, real, network, out, samples, texts, best_of, ranking, seed)
    measures.generate_all(study)
    report(measures.evaluate_paper(study), {"model": model, "samples": samples, "seed": seed}, out / "figures.json")
    save_image(measures.nearest_images(study), out / "nearest.png")
    rates = measures.images_per_second(study)
    print("images a second: " + ", ".join(f"T = {t}: {rate:.2f}" for t, rate in rates.items()))
