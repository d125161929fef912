"""Prints how large the code is: lines, modules, what the page and one edit import, and imports between packages.

python scripts/code_size.py
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = "import sys; import {}; print(*(n for n in sys.modules if n.split('.')[0] == 'imagebart'))"


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(module: str) -> list[Path]:
    """Files of this package that a fresh Python loads with a module."""
    command = [sys.executable, "-c", LOADED.format(module)]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    bases = [ROOT.joinpath(*name.split(".")) for name in names]
    return [base / "__init__.py" if base.is_dir() else base.with_suffix(".py") for base in bases]


def edges() -> Iterator[tuple[str, str]]:
    """(importer, imported) among the packages and top modules of imagebart."""
    for path in sources("imagebart"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("imagebart."):
                yield path.relative_to(ROOT / "imagebart").parts[0].removesuffix(".py"), node.module.split(".")[1]


def main() -> None:
    code = sources("imagebart", "recipes", "scripts")
    top = [path for path in (ROOT / "imagebart").glob("*.py") if not path.name.startswith("__")]
    packages = {path.parent for path in sources("imagebart", "recipes") if path.name == "__init__.py"}
    page, edit = imported("imagebart.ui.app"), imported("imagebart.pipeline")
    between = {(a, b) for a, b in edges() if a != b}
    for name, value in (
        ("Python beside tests", f"{lines(code)} lines, {len(code)} files"),
        ("tests", f"{lines(sources('tests'))} lines"),
        ("what the page imports", f"{len(page)} modules, {lines(page)} lines"),
        ("what the library's Pipeline imports", f"{len(edit)} modules, {lines(edit)} lines"),
        ("packages, top modules, imports between them", f"{len(packages)}, {len(top)}, {len(between)}"),
        ("README", f"{len((ROOT / 'README.md').read_text(encoding='utf-8').split())} words"),
    ):
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
