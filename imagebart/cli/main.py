"""Runs a command of the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from imagebart.cli import drawing, evaluating, published, training
from imagebart.cli.options import add_model_option


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 2 with one sentence on standard error for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.handler(options)
    except (ValueError, OSError) as error:
        print(f"imagebart {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m imagebart", description="Masked, prompted edits by ImageBART.")
    commands = parser.add_subparsers(dest="command", required=True)

    drawing.add_commands(commands)
    published.add_commands(commands)

    bench = commands.add_parser("bench", help="time decoding on this machine")
    add_model_option(bench)
    bench.add_argument("--only", choices=("shipped", "published"), help="one of the two models alone")
    bench.add_argument("--quick", action="store_true", help="masks of 100 and 25 %%, one variant")
    bench.add_argument("--plot", type=Path, help="PNG to write: time against masked tokens")
    bench.set_defaults(handler=_bench)

    evaluating.add_commands(commands)

    training.add_commands(commands)
    return parser


def _bench(options: argparse.Namespace) -> None:
    from imagebart.bench.command import run

    run(options.model, options.only, options.quick, options.plot)
