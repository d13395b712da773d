"""Rules about the package as a whole: who imports whom, what travels with a checkpoint, what importing costs.

The rules about imports are functions from source text to faults, so that each is also tested on a text that breaks it.
"""

import ast
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "kinetext"

INDEPENDENT = ("processing", "modeling", "descriptions")  # import nothing else of kinetext
# Each may import those before it.
ORDERED = ("data", "conversion", "evaluation", "serving", "hub_cards", "doctor", "pipelines", "training", "demo")
TRAVELLING = ("modeling", "processing")  # copied into checkpoints as remote code
NEVER_BY_STATEMENT = {"kinetext", "av", "decord", "torchcodec", "torchvision", "cv2"}
NOT_AT_IMPORT = ("av", "decord", "torchcodec", "torchvision", "datasets", "openai", "transformers.pipelines")
NOT_AT_IMPORT += ("kinetext.pipelines", "kinetext.evaluation")

# How transformers finds the files to copy beside a checkpoint (dynamic_module_utils.get_relative_imports).
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\S+)\s+import")


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def relative_id(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# Import direction


def imported_modules(source: str, package: str) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module of `package` imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def direction_faults(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` (a dotted name inside kinetext) imports against the direction of the layout."""
    own = module.split(".")[1]
    if own in INDEPENDENT:
        allowed = {own}
    elif own in ORDERED:
        allowed = {*INDEPENDENT, *ORDERED[: ORDERED.index(own) + 1], "__version__"}
    else:
        return [f"{module}: kinetext/{own} has no place in the import order; give it one in {Path(__file__).name}"]
    faults = []
    for line, name in imported_modules(source, module if is_package else module.rpartition(".")[0]):
        parts = name.split(".")
        target = parts[1] if len(parts) > 1 else "the package itself"
        if parts[0] == "kinetext" and target not in allowed:
            faults.append(f"{module}:{line} imports {name}, but {own} may only import {', '.join(sorted(allowed))}")
    return faults


def ordered_files() -> list[Path]:
    """Every file of the package except those at its root that may import anything."""
    free = {PACKAGE / name for name in ("__init__.py", "_registration.py")}
    return [path for path in python_files(PACKAGE) if path not in free and path.parent != PACKAGE / "cli"]


@pytest.mark.parametrize("path", ordered_files(), ids=relative_id)
def test_imports_follow_the_direction_of_the_layout(path: Path) -> None:
    module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    assert direction_faults(path.read_text("utf-8"), module, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kinetext.processing.a", "from kinetext.modeling.b import c"),
        ("kinetext.modeling.a", "def f():\n    import kinetext.data"),
        ("kinetext.descriptions.a", "from ..modeling import b"),
        ("kinetext.descriptions.a", "from kinetext import XCLIPModel"),
        ("kinetext.descriptions", "from ..data import b"),
        ("kinetext.data.a", "from ..training.trainer import T"),
        ("kinetext.data.a", "from .. import training"),
        ("kinetext.evaluation.a", "import kinetext"),
        ("kinetext.evaluation.a", "from kinetext.cli import app"),
        ("kinetext.helpers", "import torch"),
    ],
)
def test_direction_check_finds(module: str, source: str) -> None:
    assert len(direction_faults(source, module, is_package=module.count(".") == 1)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kinetext.processing.a", "from .b import c\nimport torch"),
        ("kinetext.modeling", "from .b import c"),
        ("kinetext.data.a", "from kinetext.processing.b import c\nfrom ..modeling.b import c\nfrom .b import c"),
        ("kinetext.training.a", "from .. import data\nfrom kinetext import __version__\nfrom ..hub_cards.b import c"),
    ],
)
def test_direction_check_allows(module: str, source: str) -> None:
    assert direction_faults(source, module, is_package=module.count(".") == 1) == []


# Files that travel with a checkpoint


def travel_faults(source: str, siblings: set[str]) -> list[str]:
    """What would break this file as remote code, in a folder with the modules `siblings` and without kinetext."""
    faults = []
    relative_import_lines = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            relative_import_lines.add(node.lineno)
            if node.level > 1 or node.module not in siblings:
                target = "." * node.level + (node.module or "")
                faults.append(f"line {node.lineno}: 'from {target} import' does not name a file of the same folder")
        for name in names:
            if name.split(".")[0] in NEVER_BY_STATEMENT:
                faults.append(f"line {node.lineno}: imports {name}; use importlib.import_module where it is needed")
    for number, line in enumerate(source.splitlines(), start=1):
        if RELATIVE_IMPORT.match(line) and number not in relative_import_lines:
            faults.append(f"line {number}: text that transformers takes for a relative import: {line.strip()!r}")
    return faults


def travelling_files() -> list[Path]:
    files = [path for folder in TRAVELLING for path in python_files(PACKAGE / folder)]
    return [path for path in files if path.name != "__init__.py"]


@pytest.mark.parametrize("path", travelling_files(), ids=relative_id)
def test_file_that_travels_can_be_loaded_as_remote_code(path: Path) -> None:
    assert path.parent.parent == PACKAGE, "modeling/ and processing/ are flat: remote code has no sub-folders"
    assert travel_faults(path.read_text("utf-8"), {other.stem for other in path.parent.glob("*.py")}) == []


def test_files_that_travel_have_different_names() -> None:
    counts = Counter(path.name for path in travelling_files())
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    "source",
    [
        "from . import layers",
        "from ..modeling.layers import A",
        "from .layers.attention import A",
        "from .missing import A",
        "from kinetext.modeling.layers import A",
        "import av",
        "def f():\n    import av",
        "try:\n    from decord import VideoReader\nexcept ImportError:\n    pass",
        '"""Use it so:\n\n    from .layers import A\n"""',
    ],
)
def test_travel_check_finds(source: str) -> None:
    assert len(travel_faults(source, {"layers"})) == 1


def test_travel_check_allows_same_folder_imports_and_importlib() -> None:
    source = '"""Says from .layers import A."""\nfrom .layers import (\n    A,\n)\nimport_module("av")\nimport torch'
    assert travel_faults(source, {"layers"}) == []


# Public names, and what importing costs


def run_python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter, started in the repository."""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_resolves_and_has_a_docstring() -> None:
    import kinetext

    public = {name: getattr(kinetext, name) for name in kinetext.__all__}
    documented = {name: value for name, value in public.items() if not isinstance(value, str)}  # not __version__
    # A dataclass without a docstring gets its signature as one.
    bare = [name for name, value in documented.items() if (value.__doc__ or f"{name}(").startswith(f"{name}(")]
    assert documented and bare == []


def test_public_names_are_listed_once_and_shown_by_dir() -> None:
    import kinetext

    assert len(set(kinetext.__all__)) == len(kinetext.__all__)
    assert set(kinetext.__all__) <= set(dir(kinetext))


def test_unknown_attribute_is_named_in_the_error() -> None:
    import kinetext

    with pytest.raises(AttributeError, match=r"kinetext.*no attribute.*XClipModel"):
        _ = kinetext.XClipModel


def test_import_prints_nothing_and_loads_no_decoder_no_datasets_no_openai_and_no_pipeline() -> None:
    (modules,) = run_python("import json, sys, kinetext; print(json.dumps(list(sys.modules)))").splitlines()
    loaded = json.loads(modules)
    assert "kinetext" in loaded
    assert [name for name in NOT_AT_IMPORT if name in loaded] == []


@pytest.mark.slow  # a ratio of times, and these vary when other work runs beside
def test_import_takes_at_most_half_as_long_again_as_torch_and_transformers() -> None:
    seconds: dict[str, list[float]] = {"import torch, transformers": [], "import kinetext": []}
    for code in seconds:
        run_python(code)  # fills the file cache and writes the bytecode
    for _ in range(3):
        for code, durations in seconds.items():
            start = time.perf_counter()
            run_python(code)
            durations.append(time.perf_counter() - start)
    base, ours = (statistics.median(durations) for durations in seconds.values())
    assert ours <= 1.5 * base, f"import kinetext {ours:.2f} s, import torch, transformers {base:.2f} s"
