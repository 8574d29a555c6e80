"""The shape of the library: who may import whom, what a model offers, how long a file may be."""

import ast
import importlib
from pathlib import Path

import pytest

import brainjax

ROOT = Path(brainjax.__file__).parent
# Each module may import those before it.
LAYERS = (
    "ops",
    "validation",
    "connectivity",
    "plasticity",
    "neurons",
    "assemblies",
    "spiking",
    "burst",
    "calculus",
    "automata",
    "language",
    "stimulus",
    "metrics",
    "timing",
    "simulation",
    "analysis",
    "plotting",
    "training",
    "connectomes",
    "genome",
    "checkpoint",
    "recording",
    "experiment",
    "cli",
)
MODELS = ("assemblies", "spiking", "burst")
PROTOCOL = ("Config", "Params", "State", "init", "step")
MAX_LINES, MAX_FUNCTION_LINES = 300, 40
# Experiments and benchmarks that an installation carries along are programs, not layers.
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ("__init__.py", "experiments", "benchmarks")
]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def layer_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_layers(path):
    """The modules of brainjax that a file imports, at its top or inside a function."""
    layers = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            layers |= {
                alias.name.split(".")[1] for alias in node.names if "brainjax." in alias.name
            }
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            if node.module == "brainjax":
                layers |= {alias.name for alias in node.names}
            elif node.module.startswith("brainjax."):
                layers.add(node.module.split(".")[1])
    return layers


@each_file
def test_imports_point_upwards(path):
    layer = layer_of(path)
    assert layer in LAYERS, f"{layer} has no place in the list of layers"
    allowed = {*LAYERS[: LAYERS.index(layer)], layer}
    assert imported_layers(path) <= allowed


def test_operations_import_nothing_else_of_ours():
    for path in FILES:
        if layer_of(path) == "ops":
            assert imported_layers(path) <= {"ops"}, path


@pytest.mark.parametrize("model", [model for model in MODELS if (ROOT / model).exists()])
def test_models_have_the_five_names(model):
    module = importlib.import_module(f"brainjax.{model}")
    assert all(hasattr(module, name) for name in PROTOCOL)


@each_file
def test_files_are_nouns_of_bounded_length(path):
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each_file
def test_functions_are_short(path):
    """The code of a function, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= MAX_FUNCTION_LINES, f"{path.name}: {node.name}"


@each_file
def test_every_module_and_public_name_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
