"""Generated and hostile input is used within limits, or refused: in short in every run, at length in `make fuzz`."""

import json
import re
import shutil
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from published_files import CLASS_MODEL, RESIDUAL_MODEL, zipped
from tiny_models import tiny_model, tiny_staged_model

from imagebart import InputError, SamplingSettings
from imagebart.cli import main
from imagebart.core.errors import WeightsError
from imagebart.imaging.files import FORMATS, MAX_PIXELS, MIN_SIDE, Recipe, load_image
from imagebart.pipeline import Pipeline

SECONDS = 10  # of the processor, for one case
MEMORY = 1e9  # bytes more than before, for one case
STATUS, REFRESH = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Fuzz = Callable[..., None]


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.fuzz)])
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Checks so many generated values: fuzz(check, strategy, short, long)."""

    def run(check: Callable[[Any], None], values: st.SearchStrategy[Any], short: int, long: int) -> None:
        is_short = request.param == "short"
        options = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
        settings(max_examples=short if is_short else long, derandomize=is_short, **options)(given(values)(check))()

    return run


class TooSlow(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


@contextmanager
def limited() -> Iterator[None]:
    """Fails where the work takes over SECONDS of the processor, or over MEMORY (on Linux, which reports it)."""

    def stop(*_: object) -> None:
        raise TooSlow(f"it takes more than {SECONDS} s")

    before = memory("VmRSS")
    if REFRESH.exists():
        REFRESH.write_text("5")  # resets the peak to what is used now
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    assert memory("VmHWM") - before < MEMORY


def memory(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii")) if STATUS.exists() else None
    return 0.0 if found is None else 1000.0 * int(found.group(1))


SURROGATES = st.text(st.characters(), max_size=60)  # lone ones, too, which no recipe takes
ANY_VALUE = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), SURROGATES, st.binary(max_size=9), st.lists(st.integers())),
    *(st.integers(0, 5).map(np.int64), st.floats(0, 5).map(np.float64), st.just(10**400), st.just(np.ones(2))),
)


def test_a_recipe_can_be_read_back_or_is_refused(fuzz: Fuzz) -> None:
    made, refused = [], []

    def check(values: tuple[dict[str, Any], dict[str, Any]]) -> None:
        needed = {"model": "tiny", "task": "generate", "prompt": "a hat", "seed": 1}
        try:
            recipe = Recipe.parse(**{"settings": SamplingSettings.parse(**values[0]), **needed, **values[1]})
        except InputError as error:
            refused.append(error)
            assert 0 < len(str(error)) < 300 and "\n" not in str(error)
        else:
            made.append(recipe)
            assert Recipe.from_json(recipe.to_json()) == recipe

    names = (sorted(kind.model_fields) for kind in (SamplingSettings, Recipe))
    values = st.tuples(*(st.dictionaries(st.sampled_from(fields), ANY_VALUE, max_size=2) for fields in names))
    fuzz(check, values, 300, 20_000)
    assert made and refused


LENGTHS = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0"]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are changed, cut out, repeated, or overwritten by lengths that readers do not expect."""
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 4, 8, 100, 5000]))
        repeated = st.just(2 * content[place : place + length])
        new = draw(st.binary(max_size=8) | st.sampled_from(LENGTHS) | repeated)
        content = content[:place] + new + content[place + length :]
    return content


MODES = {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "JPEG": ["L", "RGB", "CMYK"], "WEBP": ["RGB", "RGBA"]}


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """A file of any format and mode, whole or damaged, sometimes with two frames, or of a size beyond the limits."""
    kind = draw(st.sampled_from(FORMATS))
    mode = draw(st.sampled_from(MODES[kind]))
    size = draw(st.sampled_from([(16, 16), (37, 50), (200, 17), (300, 300), (1, 1), (15_000, 20)]))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1))
    image = Image.fromarray(values.astype(np.uint8)).resize(size)
    image = Image.new(mode, size) if mode == "CMYK" else image.convert(mode)
    frames = {"save_all": True, "append_images": [image]} if kind == "WEBP" and draw(st.booleans()) else {}
    file = BytesIO()
    image.save(file, kind, **frames)
    return draw(st.just(file.getvalue()) | damaged(file.getvalue()))


def test_an_image_is_read_or_refused(fuzz: Fuzz) -> None:
    read, refused = [], []

    def check(content: bytes) -> None:
        try:
            with limited():
                image = load_image(content)
        except InputError as error:
            refused.append(str(error))
            assert str(error).startswith("The image") and str(error).endswith(".") and len(str(error)) < 300
        else:
            read.append(content)
            assert image.mode in ("RGB", "RGBA") and min(image.size) >= MIN_SIDE
            assert image.width * image.height <= MAX_PIXELS

    fuzz(check, image_files(), 60, 4500)
    assert read and len(set(refused)) > 2


CANARY = "canary"
# Pickles that would make the canary, were they run; `test_checkpoint.py` shows that PyTorch's own reader runs such.
PROGRAMS = [
    f"cos\nmkdir\n(X{struct.pack('<I', len(CANARY)).decode()}{CANARY}tR".encode(),
    f"(S'mkdir {CANARY}'\nios\nsystem\n".encode(),
    f'c__builtin__\neval\n(S\'__import__("os").mkdir("{CANARY}")\'\ntR'.encode(),
    f"(cos\nmkdir\nS'{CANARY}'\no".encode(),
]
YAML_VALUES = [
    *(f"!!python/object/apply:os.mkdir [{CANARY}]", f"!!python/object/new:os.system ['mkdir {CANARY}']"),
    *("", "null", "true", "-1", "0", "1e999", ".nan", "9" * 400, "9" * 6000, "[]", "{}", "[1, 2]", "{a: b}", "*a"),
    *("x" * 3000, "'\\ud800'", "&a [*a, *a]", "2147483648", "1.5", "[[[[[[]]]]]]", "\0", "2001-01-01"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SURROGATES | st.sampled_from([10**400, [[]] * 500]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(SURROGATES, values, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON: a list or object, and an index or name."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@st.composite
def damage(draw: st.DrawFn, files: list[Path]) -> tuple[Path, bytes]:
    """A file of a model, and what to put in its place: bytes, another value in a configuration, another pickle."""
    path = draw(st.sampled_from(files))
    content = path.read_bytes()
    kind = path.suffix if draw(st.integers(0, 3)) else "bytes"
    if kind == ".json":
        values = json.loads(content)
        place, key = draw(st.sampled_from(list(places(values))))
        place[key] = draw(JSON)
        content = json.dumps(values).encode()
    elif kind == ".yaml":
        lines = content.decode().splitlines()
        number = draw(st.sampled_from([number for number, line in enumerate(lines) if ":" in line]))
        lines[number] = f"{lines[number].partition(':')[0]}: {draw(st.sampled_from(YAML_VALUES))}"
        content = "\n".join(lines).encode()
    elif kind == ".ckpt":
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in entries if name.endswith("/data.pkl"))
        start = draw(st.integers(0, len(entries[name])))
        pickled = entries[name][:start] + draw(st.sampled_from(PROGRAMS)) + entries[name][start:]
        entries[name] = draw(st.just(pickled) | damaged(pickled))
        content = zipped(entries)
    else:
        content = draw(damaged(content))
    return path, content


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL, tiny_model, tiny_staged_model])
def test_a_model_is_loaded_or_refused(fuzz: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    if isinstance(source, Path):
        shutil.copytree(source, folder)
    else:
        source("text").save_pretrained(folder)
    loaded, refused = [], []

    def check(damage: tuple[Path, bytes]) -> None:
        path, content = damage
        original = path.read_bytes()
        path.write_bytes(content)
        try:
            with limited():
                loaded.append(Pipeline.from_pretrained(folder).vocabulary)
        except WeightsError as error:
            refused.append(error)
            assert folder.name in str(error) and "\n" not in str(error) and len(str(error)) <= 1000
        finally:
            path.write_bytes(original)
        assert not (tmp_path / CANARY).exists(), "a program in a file was run"

    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".yaml", ".ckpt", ".safetensors"))
    fuzz(check, damage(files), 15 if isinstance(source, Path) else 40, 2000)
    assert refused


COMMANDS = {
    "generate": ["--model", "model", "--prompt", "a hat", "--out", "out.png"],
    "edit": ["--model", "model", "--image", "in.png", "--mask", "upper half", "--prompt", "a hat", "--out", "out.png"],
    "vary": ["--model", "model", "--image", "in.png", "--strength", "0.3", "--out", "out.png"],
    "describe": ["in.png", "--model", "model"],
    "convert": ["model", "--out", "converted", "--dtype", "bfloat16"],
    "download": ["cats_3_scales", "--from", "nowhere"],
    "evaluate": ["folder", "--model", "model", "--data", "model", "--samples", "4"],
    "train stage": ["--config", "model/config.json", "--run", "model"],
}
OPTIONS = [
    *("--seed", "--variants", "--temperature", "--top-k", "--top-p", "--guidance", "--scales", "--resamples"),
    *("--like", "--steps-out", "--best-of", "--scorer", "--feather", "--context"),
    *("--nonsense", "--help", "--", "-", "--=", "--seed=--", "--out", "--mask", "--model", "--dtype", "--revision"),
]
VALUES = [
    *("", " ", "0", "-1", "1", "2", "1.5", "1e400", "nan", "inf", "9" * 5000, "x" * 5000, "auto", "center"),
    *("in.png", "model", "model/config.json", ".", "..", "/", "/dev/null", "/dev/full", "a/b/c", "\0", "\udcff", "~"),
    *("out.webp", "out.gif", "out.words", "owner/name", "http://127.0.0.1:1", "1,2,3", "1,,", "[1]", "--seed", "int8"),
]


@st.composite
def odd_lines(draw: st.DrawFn) -> list[str]:
    """A command line that would do, with some of its words replaced, left out, said twice or added."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    line = [*name.split(), *COMMANDS[name]]
    for _ in range(draw(st.integers(1, 4))):
        place, length = draw(st.integers(1, len(line))), draw(st.integers(0, 1))
        option, value = draw(st.sampled_from(OPTIONS)), draw(st.sampled_from(VALUES) | SURROGATES)
        line[place : place + length] = draw(st.sampled_from([[], [value], [option], [option, value]]))
    return line


def test_a_command_line_is_done_or_refused_in_one_sentence(
    fuzz: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    tiny_model("text", scales=1).save_pretrained(tmp_path / "model")
    original = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    image = Image.effect_noise((40, 40), 50).convert("RGB")
    codes = set()

    def check(line: list[str]) -> None:
        image.save(tmp_path / "in.png")
        with limited():
            code = main(line)
        said = capsys.readouterr().err
        codes.add(code)
        assert code in (0, 2) and "Traceback" not in said
        if code == 2:
            last = said.splitlines()[-1]
            assert last.startswith("imagebart") and len(last) < 1200, last
        assert all(path.read_bytes() == content for path, content in original.items())

    fuzz(check, odd_lines(), 60, 300)
    assert codes == {0, 2}
