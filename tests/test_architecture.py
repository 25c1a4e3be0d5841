"""Who may import whom: the layers of the house, and the libraries that live in one room each."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cryoplug
from cryoplug.cli.main import COMMANDS
from cryoplug.models.registry import BUILT_IN

PUBLIC = {*cryoplug.__all__} - {"__version__"}
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cryoplug"

LAYERS = (
    {"errors", "__init__"},
    {"core", "disk", "extensions", "schemas"},
    {"formats", "store", "metrics", "kernels", "machine", "simulation"},
    {"models", "inputs"},
    {"outputs", "training", "inference"},
    {"reports"},
    {"workflows"},
    {"cli", "verbs"},
    {"__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The lazy public names at the top of the package and the contract tests for third parties reach everywhere by purpose.
FREE = {"__init__", "testing"}

TORCH_AT_THE_TOP = (
    *(f"{str(spec.factory).partition(':')[0].removeprefix('cryoplug.').replace('.', '/')}.py" for spec in BUILT_IN),
    "inference/network/band_network.py",
    "inference/network/batches.py",
    "kernels/",
    "machine/copy_stream.py",
    "machine/core_workers.py",
    "machine/streams.py",
    "machine/pinned.py",
    "training/",
    "inference/prepared.py",
    "inference/network/device_image.py",
    "inference/whole/pixels.py",
    "inference/whole/regrid.py",
    "inference/network/every_output.py",
    "inference/network/fastest.py",
    "inference/network/doubled.py",
    "inference/network/rolling.py",
    "inference/network/rolling_rows.py",
    "inference/network/tile_network.py",
    "inference/whole/computing.py",
    "inference/whole/preparing.py",
    "simulation/camera.py",
    "simulation/poisson.py",
    "simulation/dirt.py",
    "simulation/field.py",
    "simulation/ice.py",
    "simulation/micrograph.py",
    "simulation/patch.py",
    "simulation/planes.py",
    "simulation/texture.py",
)
ONLY_IN = {
    "click": ("cli/",),
    "rich": ("cli/",),
    "h5py": ("store/hdf5.py",),
    "matplotlib": ("reports/",),
    "mrcfile": ("formats/",),
    "starfile": ("formats/star_frames.py",),
    "pandas": ("formats/star_frames.py",),
    "tifffile": ("formats/",),
    "imagecodecs": ("formats/",),
    "ncempy": ("formats/",),
    "gemmi": ("simulation/structures.py",),
    "safetensors": ("models/checkpoint.py", "models/weight_files.py", "training/"),
    "triton": ("kernels/",),
    "PIL": ("outputs/pictures.py",),
    "jinja2": ("reports/html.py",),
    "markupsafe": ("reports/html.py",),
}
NEVER = ("scipy", "pickle", "requests", "urllib3")


@dataclass(frozen=True)
class Import:
    source: str  # path below cryoplug/
    line: int
    target: str  # dotted name of what is imported
    at_the_top: bool  # runs when the module is imported
    for_types_only: bool

    def __str__(self) -> str:
        return f"cryoplug/{self.source}:{self.line} imports {self.target}"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    source = path.relative_to(PACKAGE).as_posix()

    def visit(node: ast.AST, *, at_the_top: bool, types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(source, node.lineno, name.name, at_the_top, types)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"cryoplug/{source}:{node.lineno}: relative import; write the full name"
            for name in node.names:
                yield Import(source, node.lineno, f"{node.module}.{name.name}", at_the_top, types)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, at_the_top=at_the_top, types=True)
            for child in node.orelse:
                yield from visit(child, at_the_top=at_the_top, types=types)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_the_top=at_the_top and not inside, types=types)

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), at_the_top=True, types=False)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(item for path in modules() for item in imports_of(path))


def layer(source: str) -> str:
    return source.split("/")[0].removesuffix(".py")


def target_layer(target: str) -> str | None:
    """Layer of an imported name of cryoplug; None for other libraries."""
    parts = target.split(".")
    if parts[0] != "cryoplug":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in {*RANK, *FREE} else "__init__"


def lives_in(source: str, places: tuple[str, ...]) -> bool:
    return any(source == place or (place.endswith("/") and source.startswith(place)) for place in places)


def test_every_module_belongs_to_a_layer() -> None:
    unknown = {layer(path.relative_to(PACKAGE).as_posix()) for path in modules()} - set(RANK) - FREE
    assert not unknown, f"give these a layer in tests/test_architecture.py: {unknown}"


def test_a_layer_imports_only_the_layers_below_it() -> None:
    wrong = []
    for item in all_imports():
        source, target = layer(item.source), target_layer(item.target)
        if target is None or source in FREE or source == target:
            continue
        if target in FREE - {"__init__"} or RANK[target] >= RANK[source]:
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def files_imported() -> dict[str, set[str]]:
    """For each file the files that it names in its imports, also inside functions and for types alone."""
    files = {path.relative_to(PACKAGE).as_posix() for path in modules()}

    def file_of(target: str) -> str | None:
        parts = target.split(".")[1:]
        for length in range(len(parts), 0, -1):
            stem = "/".join(parts[:length])
            for name in (f"{stem}.py", f"{stem}/__init__.py"):
                if name in files:
                    return name
        return None

    found: dict[str, set[str]] = {name: set() for name in files}
    for item in all_imports():
        target = file_of(item.target) if item.target.split(".")[0] == "cryoplug" else None
        if target is not None and target != item.source:
            found[item.source].add(target)
    return found


def test_no_circle_of_files() -> None:
    imported = files_imported()
    # Files that import nothing that is left are taken away, again and again; a circle stays.
    while free := [name for name, targets in imported.items() if not targets & imported.keys()]:
        for name in free:
            del imported[name]
    circles = {name: sorted(targets & imported.keys()) for name, targets in sorted(imported.items())}
    assert not circles, "\n".join(f"{name} imports {', '.join(targets)}" for name, targets in circles.items())


def test_no_command_s_workflow_imports_another() -> None:
    wrong = []
    for item in all_imports():
        source, target = item.source.split("/"), item.target.split(".")
        if source[0] == "workflows" and target[:2] == ["cryoplug", "workflows"] and target[2:3] != source[1:2]:
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


def test_no_command_imports_another() -> None:
    wrong = []
    for item in all_imports():
        source, target = item.source.split("/"), item.target.split(".")
        ours = source[0] == "cli" and source[1].removesuffix(".py") in COMMANDS
        if ours and target[:2] == ["cryoplug", "cli"] and target[2] in {*COMMANDS} - {source[1].removesuffix(".py")}:
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)


LOADED_BY_NAME = {"__init__.py", "cli/main.py", "models/registry.py"}
"""The lazy public names, the commands, the networks of plugins."""


def test_nothing_is_imported_in_a_way_that_these_laws_do_not_see() -> None:
    # A public name of the package is looked up when it is asked for: cryoplug.denoise from below would be a circle.
    public = {f"cryoplug.{name}" for name in PUBLIC}
    wrong = [str(item) for item in all_imports() if item.target in public]
    for path in modules():
        source = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            by_name = called in ("__import__", "importlib.import_module", "import_module")
            is_public = isinstance(node, ast.Attribute) and ast.unparse(node) in public
            if (by_name and source not in LOADED_BY_NAME) or is_public:
                wrong.append(f"cryoplug/{source}:{node.lineno}: {ast.unparse(node)}")
    assert not [text for text in wrong if not text.startswith("cryoplug/testing/")], "\n".join(wrong)


def test_inference_never_imports_training() -> None:
    wrong = [
        str(item) for item in all_imports() if layer(item.source) == "inference" and "cryoplug.training" in item.target
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_in_its_own_place_alone(library: str) -> None:
    users = [item for item in all_imports() if item.target.split(".")[0] == library and layer(item.source) != "testing"]
    wrong = [str(item) for item in users if not lives_in(item.source, ONLY_IN[library])]
    assert not wrong, "\n".join([f"{library} belongs in {ONLY_IN[library]}:", *wrong])


@pytest.mark.parametrize(
    "library", ["matplotlib", "rich", "h5py", "pandas", "starfile", "gemmi", "safetensors", "triton", "PIL", "jinja2"]
)
def test_a_library_that_few_commands_need_is_imported_inside_functions(library: str) -> None:
    allowed = ("store/hdf5.py", "kernels/", "training/")
    wrong = [
        str(item)
        for item in all_imports()
        if item.target.split(".")[0] == library
        and item.at_the_top
        and not item.for_types_only
        and not lives_in(item.source, allowed)
    ]
    assert not wrong, "\n".join(wrong)


def test_torch_is_imported_at_the_top_only_where_networks_run() -> None:
    wrong = [
        str(item)
        for item in all_imports()
        if item.target.split(".")[0] == "torch"
        and item.at_the_top
        and not item.for_types_only
        and not lives_in(item.source, TORCH_AT_THE_TOP)
    ]
    assert not wrong, "\n".join(wrong)


def test_core_touches_no_library_but_numpy() -> None:
    allowed = {"cryoplug", "numpy", *sys.stdlib_module_names}
    used = [item for item in all_imports() if layer(item.source) == "core" and not item.for_types_only]
    wrong = [str(item) for item in used if item.target.split(".")[0] not in allowed]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", NEVER)
def test_libraries_that_are_no_dependency_are_not_imported(library: str) -> None:
    wrong = [str(item) for item in all_imports() if item.target.split(".")[0] == library]
    assert not wrong, "\n".join(wrong)


def test_every_library_that_is_imported_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(text for texts in project["optional-dependencies"].values() for text in texts)]
    names = {Requirement(text).name.lower() for text in asked}
    brought = {"pandas", "markupsafe"}  # by starfile and by jinja2
    providers = importlib.metadata.packages_distributions()
    used = {item.target.split(".")[0] for item in all_imports()} - {*sys.stdlib_module_names, "cryoplug"}
    used -= {"compression"}  # of Python 3.14's own library
    missing = {name for name in used if not {item.lower() for item in providers.get(name, [name])} & (names | brought)}
    assert len(used) > 10 and not missing


def heavy_after(code: str, tmp_path: Path) -> set[str]:
    """Run code in a fresh interpreter; return which heavy libraries it imported."""
    script = (
        f"import sys\n{code}\n"
        "print('HEAVY', *sorted({'torch', 'matplotlib', 'scipy', 'pandas'} & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CRYOPLUG_NO_PLUGINS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("HEAVY")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import cryoplug",
        "import cryoplug; cryoplug.denoise, cryoplug.evaluate, cryoplug.simulate, cryoplug.open_store",
        "import cryoplug.cli.main",
        "import cryoplug.cli.convert",
        "import cryoplug.cli.inspect",
        "import cryoplug.cli.plugins",
        "import cryoplug.workflows.convert",
        "import cryoplug.workflows.inspect",
        "import cryoplug.cli.train",
        "import cryoplug.cli.denoise",
        "import cryoplug.cli.evaluate",
        "import cryoplug.workflows.evaluate",
        "from cryoplug.cli.main import run; assert run(['--help']) == 0",
        "from cryoplug.cli.main import run; assert run(['convert', '--help']) == 0",
        "from cryoplug.cli.main import run; assert run(['inspect', '--help']) == 0",
    ],
)
def test_light_commands_do_not_import_heavy_libraries(code: str, tmp_path: Path) -> None:
    assert heavy_after(code, tmp_path) == set()


def test_help_of_every_command_does_not_wait_for_numpy() -> None:
    code = """
import sys
from cryoplug.cli.main import COMMANDS, run
for words in ([], *([name] for name in COMMANDS)):
    assert run([*words, "--help"]) == 0
    assert "numpy" not in sys.modules, words
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_converting_and_inspecting_a_micrograph_does_not_import_torch(tmp_path: Path) -> None:
    code = """
import numpy as np
from pathlib import Path
from cryoplug.cli.main import run
from cryoplug.formats.mrc import write_mrc
pixels = np.random.default_rng(1).normal(5, 1, (96, 80)).astype(np.float32)
for name in ("a.mrc", "b.mrc"):
    write_mrc(Path(name), pixels, pixel_size_angstrom=1.0)
assert run(["inspect", "a.mrc"]) == 0
assert run(["convert", "a.mrc", "b.mrc", "-o", "store", "--patch-size", "64", "--stride", "16"]) == 0
assert run(["inspect", "store"]) == 0
"""
    assert "torch" not in heavy_after(code, tmp_path)
