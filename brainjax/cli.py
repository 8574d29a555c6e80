"""The command `brainjax`: what is installed, a demonstration, and every experiment by its name."""

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_EXIT_CODES = """\
exit codes:
  0  done, and every claim holds
  1  a claim of the experiment failed
  2  a name, flag or setting is wrong
  3  cannot run: not enough memory, a missing package, a value that the library refuses
  4  unexpected error
"""
_PACKAGES = ("brainjax", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn", "matplotlib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = _parser()
    command = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    if "perform" not in command:
        parser.print_help()
        return 0
    return command.perform(command)


def _parser():
    parser = argparse.ArgumentParser(
        prog="brainjax",
        description=__doc__,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    info = commands.add_parser("info", help="devices, kernels, memory and versions")
    info.set_defaults(perform=_info)
    info.add_argument("--json", type=Path, metavar="FILE", help="write it to this file as well")

    demo = commands.add_parser("demo", help="learn handwritten digits and draw the result")
    demo.set_defaults(perform=_demo)
    demo.add_argument("--out", default="demo", metavar="DIR", help="for the pictures (%(default)s)")
    demo.add_argument("--json", metavar="FILE", help="write the result to this file")
    demo.add_argument("--smoke", action="store_true", help="a small run that takes seconds")

    for name, kind, what in (
        ("run", "experiments", "experiment"),
        ("bench", "benchmarks", "benchmark"),
    ):
        runner = commands.add_parser(
            name, help=f"run an {what}" if kind == "experiments" else f"run a {what}"
        )
        runner.set_defaults(perform=_run, kind=kind)
        runner.add_argument("name", nargs="?", help=f"of the {what}; without it, list all")
        runner.add_argument("flags", nargs=argparse.REMAINDER, help="its own; see NAME --help")
    return parser


def _run(command):
    # Only what is asked for is imported, so that --help is quick.
    from brainjax import experiment

    if command.name is None:
        for name in experiment.names(command.kind):
            print(f"{name:15} {_first_line(experiment.folder(command.kind) / f'{name}.py')}")
        return experiment.OK
    try:
        module = experiment.load(command.kind, command.name)
    except LookupError as error:
        print(f"brainjax: {error}", file=sys.stderr)
        return experiment.USAGE
    return experiment.main(module, command.flags)


def _demo(command):
    from brainjax import experiment

    flags = ["--out", command.out]
    flags += ["--json", command.json] if command.json else []
    flags += ["--smoke"] if command.smoke else []
    return experiment.main(experiment.load("experiments", "digits"), flags)


def _info(command):
    from rich.console import Console
    from rich.table import Table

    from brainjax import experiment

    content = describe()
    table = Table(show_header=False)
    for topic, facts in content.items():
        for name, fact in facts.items():
            table.add_row(topic, name, str(fact))
    Console().print(table)
    if command.json:
        experiment.write_json(command.json, content)
    return experiment.OK


def describe() -> dict[str, dict[str, Any]]:
    """Return what is installed: topic, then name, then fact."""
    import jax

    from brainjax import connectivity, metrics, ops

    return {
        "devices": {str(device): device.device_kind for device in jax.local_devices()},
        "kernels": {
            library.platform: library.reason or "built, and loaded"
            for library in ops.backend.libraries()
        },
        "running": {jax.default_backend(): ops.backend.running()},
        "memory": {"free GB": _gigabytes(connectivity.free_memory())},
        "versions": {name: metrics.version(name) for name in _PACKAGES},
    }


def _gigabytes(num_bytes):
    return "unknown" if num_bytes is None else round(num_bytes / 1e9, 1)


def _first_line(path):
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
