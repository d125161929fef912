"""How large the code is, beside the goals of issue 42: `python scripts/code_size.py` prints a Markdown table.

A room is a package or top module of imagebart, or one of what is beside it (recipes, scripts, app); an arrow is one
room that imports another; a room's floor is one above the highest that it imports.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = "import sys, imagebart.ui.page; print(sum(name.split('.')[0] == 'imagebart' for name in sys.modules))"


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def lines(*patterns: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(*patterns))


def room(name: str) -> str:
    """The room of a module, or of what is imported from one."""
    first, *rest = name.split(".")
    return rest[0] if first == "imagebart" and rest else first


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, and of what it imports from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in files("imagebart/**/*.py", "recipes/**/*.py", "scripts/*.py", "app.py"):
        owner = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        found[owner] |= {room(name) for name in imports(path)} - {owner}
    return {owner: targets & found.keys() for owner, targets in found.items()}


def main() -> None:
    above = arrows()

    def floor(name: str) -> int:
        return 1 + max(map(floor, above[name]), default=0)

    page = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [
        ("Python in `imagebart/`", lines("imagebart/**/*.py"), 12_500),
        ("recipes, scripts, examples", lines("recipes/**/*.py", "scripts/*.py", "examples/*.py"), 3_000),
        ("JavaScript and CSS", lines("imagebart/**/*.js", "imagebart/**/*.css"), 2_800),
        ("modules of the package", len(files("imagebart/**/*.py")), 80),
        ("rooms: packages and top modules", len(above), 22),
        ("floors: depth of imports between them", max(map(floor, above)), 9),
        ("arrows: imports between them", sum(map(len, above.values())), 80),
        ("modules that the page imports", int(page), 40),
    ]
    print("| | now | goal |\n|---|---:|---:|")
    for name, now, goal in rows:
        print(f"| {name} | {now:,} | ≤ {goal:,} |")


if __name__ == "__main__":
    main()
