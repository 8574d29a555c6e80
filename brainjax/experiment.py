"""The frame of every experiment and benchmark: settings in; a checked result, JSON, pictures out.

A program of either kind is a file with `Settings` (a frozen dataclass), `SMOKE` (one of them),
`run(settings) -> dict`, and, where it has them, `check(result)`, `draw(result, folder)` and
`FIRST`, the setting that may come first on the command line, without its flag.
Keys of the result that the frame knows:

`results`  one dict per brain, under fixed names
`rows`     one dict per thing compared
`summary`  what a reader wants to see first, by name; printed only
`metrics`  a `metrics.Metrics`, written as its summary
`records`  arrays for `draw`, which are not written

A file whose name begins with _ is a part of the programs beside it, which import it.
"""

import dataclasses
import difflib
import functools
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

from brainjax import assemblies, connectivity, metrics
from brainjax.validation import require as require

Kind = Literal["experiments", "benchmarks"]

# Exit codes.
OK = 0
CLAIM_FAILED = 1
USAGE = 2
CANNOT_RUN = 3
CRASHED = 4

_NOT_WRITTEN = ("metrics", "records", "summary")


def claim(holds: bool, text: str) -> None:
    """Raise AssertionError saying `text` unless it holds; unlike assert, also under -O."""
    if not holds:
        raise AssertionError(text)


def births(
    config: assemblies.Config, params: assemblies.Params, key: Array, brains: int
) -> assemblies.State:
    """Draw many brains, which differ in their synapses, along a leading axis.

    Args:
        config: of each.
        params: of each.
        key: typed PRNG key.
        brains: how many.

    Raises:
        MemoryError: the weights of all do not fit into the memory of the device.
    """
    connectivity.check_fits(brains * config.weight_bytes, f"{brains} brains {config.dtype}")
    init = functools.partial(assemblies.init, config, params)
    return jax.vmap(init)(jax.random.split(key, brains))


def main(module: ModuleType, arguments: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line.

    Args:
        module: with the names that the module docstring above lists.
        arguments: of the command line; those of the process by default.

    Returns:
        Exit code: 0 done, 1 a claim failed, 3 cannot run (memory, a missing package, a refused
        value), 4 unexpected error. Wrong flags and settings exit with 2.
    """
    command = _parse(module, sys.argv[1:] if arguments is None else list(arguments))
    try:
        return _execute(module, command)
    except (MemoryError, ImportError, ValueError, OSError) as error:
        print(f"{_name(module)} cannot run: {error}", file=sys.stderr)
        return CANNOT_RUN
    except Exception:
        # Python's own exit code for this is 1, which here means a failed claim.
        traceback.print_exc()
        return CRASHED


def folder(kind: Kind) -> Path:
    """Return where programs of that kind are: beside the package, or in the installed one."""
    package = Path(__file__).parent
    return package / kind if (package / kind).is_dir() else package.parent / kind


def names(kind: Kind) -> list[str]:
    """Return the names of the programs of that kind."""
    return sorted(path.stem for path in folder(kind).glob("[!_]*.py"))


def load(kind: Kind, name: str) -> ModuleType:
    """Import a program by its name.

    Raises:
        LookupError: there is none of that name; the error suggests similar ones.
    """
    if name not in names(kind):
        raise LookupError(_unknown(kind, name))
    specification = importlib.util.spec_from_file_location(
        f"brainjax_{kind}_{name}", folder(kind) / f"{name}.py"
    )
    if specification is None or specification.loader is None:
        raise LookupError(_unknown(kind, name))
    if (beside := str(folder(kind))) not in sys.path:
        sys.path.append(beside)  # where a script finds its parts too
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def write_json(path: Path, content: Any) -> None:
    """Write `content`, with NumPy numbers and arrays as plain ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, default=_plain) + "\n")


def _parse(module, arguments):
    """Settings and flags; `--smoke` changes what the settings default to."""
    if hasattr(module, "FIRST") and arguments and not arguments[0].startswith("-"):
        arguments = [f"--{module.FIRST}", *arguments]
    settings = module.SMOKE if "--smoke" in arguments else module.Settings()
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("settings", tyro.conf.OmitArgPrefixes[module.Settings], settings),
            _flag("smoke", bool, False, "a small run that takes seconds"),
            _flag("json", Path | None, None, "write settings, result and versions to this file"),
            _flag("out", Path | None, None, "draw pictures into this folder"),
        ],
        frozen=True,
    )
    return tyro.cli(
        command,
        args=arguments,
        prog=_name(module),
        description=_paragraphs(module.__doc__),
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _paragraphs(text):
    """One paragraph for each headed part, as the help wraps lines by itself."""
    return re.sub(r"\n(?=\S)", "\n\n", re.sub(r"\n +", " ", text or "")).replace("\n\n\n", "\n\n")


def _flag(name, kind, default, text):
    return name, Annotated[kind, tyro.conf.arg(help=text)], default


def _execute(module, command):
    with metrics.Stopwatch() as watch:
        result = module.run(command.settings)
    failure = _failed_claim(module, result)
    if command.json:
        write_json(command.json, _document(module, command.settings, result, watch, failure))
    _print(result)
    if command.out and hasattr(module, "draw"):
        command.out.mkdir(parents=True, exist_ok=True)
        for path in module.draw(result, command.out):
            print(f"drew {path}")
    if failure:
        print(f"{_name(module)}: claim failed: {failure}", file=sys.stderr)
    return CLAIM_FAILED if failure else OK


def _failed_claim(module, result):
    """What `check` says, or None if every claim holds."""
    try:
        getattr(module, "check", lambda result: None)(result)
    except AssertionError as error:
        return str(error) or "a claim without a text"
    return None


def _document(module, settings, result, watch, failure):
    """What is written: everything that a figure depends on, beside the figures."""
    written = {key: value for key, value in result.items() if key not in _NOT_WRITTEN}
    measured = {"metrics": result["metrics"].summary()} if "metrics" in result else {}
    return {
        "name": _name(module),
        "settings": dataclasses.asdict(settings),
        "check": failure or "passed",
        **written,
        **measured,
        "wall": {"compile_s": watch.compile_seconds, "run_s": watch.run_seconds},
        "environment": metrics.environment(),
    }


def _print(result):
    console = Console()
    if summary := result.get("summary"):
        console.print(_table(["", ""], summary.items(), show_header=False))
    if rows := result.get("rows"):
        columns = [key for key, value in rows[0].items() if not isinstance(value, dict | list)]
        console.print(_table(columns, [[row[key] for key in columns] for row in rows]))


def _table(columns, lines, **options):
    table = Table(*columns, **options)
    for line in lines:
        table.add_row(*(_text(cell) for cell in line))
    return table


def _text(cell):
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _name(module):
    """The stem of its file, also when it runs as `__main__`."""
    return Path(module.__file__).stem


def _unknown(kind, name):
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"name must be one of {', '.join(map(repr, known)) or 'none'}; got {name!r}{hint}"


def _plain(value):
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    return str(value)
