"""How large the code is, beside the goals of issues 42 and 43: `python scripts/code_size.py` prints a Markdown table.

Packages are those of imagebart, its top modules, and what is beside it (recipes, scripts, app). The depth of a package
is one more than the largest depth of those that it imports.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/**/*.py", "tests/**/*.mjs")
LOADED = "import sys, imagebart.ui.page; print(sum(name.split('.')[0] == 'imagebart' for name in sys.modules))"


def files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def lines(*patterns: str) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files(*patterns))


def package_of(name: str) -> str:
    """The package of a module, or of what is imported from one."""
    first, *rest = name.split(".")
    return rest[0] if first == "imagebart" and rest else first


def imported_packages() -> dict[str, set[str]]:
    """The packages that each package imports."""
    imported: dict[str, set[str]] = defaultdict(set)
    for path in files("imagebart/**/*.py", "recipes/**/*.py", "scripts/*.py", "app.py"):
        package = package_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                imported[package] |= {package_of(module + alias.name) for alias in node.names} - {package}
    return {package: others & imported.keys() for package, others in imported.items()}


def main() -> None:
    imported = imported_packages()

    def depth(package: str) -> int:
        return 1 + max(map(depth, imported[package]), default=0)

    page = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [
        ("Python in `imagebart/`", lines("imagebart/**/*.py"), 12_500),
        ("recipes, scripts, examples", lines("recipes/**/*.py", "scripts/*.py", "examples/*.py"), 3_000),
        ("JavaScript and CSS", lines("imagebart/**/*.js", "imagebart/**/*.css"), 2_800),
        ("modules of the package", len(files("imagebart/**/*.py")), 80),
        ("packages and top modules", len(imported), 22),
        ("depth of imports between them", max(map(depth, imported)), 9),
        ("imports between them", sum(map(len, imported.values())), 80),
        ("modules that the page imports", int(page), 40),
        ("Python and JavaScript in `tests/`", lines(*TESTS), 14_500),
        ("files of tests", len(files(*TESTS)), 90),
    ]
    print("| | now | goal |\n|---|---:|---:|")
    for name, now, goal in rows:
        print(f"| {name} | {now:,} | ≤ {goal:,} |")


if __name__ == "__main__":
    main()
