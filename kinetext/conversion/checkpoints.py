"""What all converters share: reading files of other projects safely, and writing a folder whole or not at all.

A checkpoint is read without running any code in it, and fits without remainder or not at all: every tensor has a place,
and every place of the model gets one of the wanted shape.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from ..descriptions.load import HUB_ID

# X-CLIP and ViFi-CLIP save their yacs configuration beside the weights. Read as a plain mapping, no code of it runs.
_INERT_GLOBALS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]
STATE_KEYS = ("model", "model_state_dict")  # under which projects save their weights: X-CLIP and ViFi-CLIP; Text4Vis
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """What is in a file of another project.

    Attributes:
        path: the file.
        state: its tensors by name, without `module.` in front.
        config: the configuration saved beside them; empty where there is none.
    """

    path: Path
    state: dict[str, torch.Tensor]
    config: Mapping[str, Any]

    def setting(self, *names: str) -> Any:
        """The value at this path of the configuration; None where there is none."""
        value: Any = self.config
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class Converted:
    """A model made of a checkpoint.

    Attributes:
        model: with its weights.
        contract: arguments of `VideoTextProcessor` that its project has.
        notes: what the user should know, one sentence each.
    """

    model: Any
    contract: dict[str, Any]
    notes: tuple[str, ...] = ()


# Source and destination


def is_file(source: Any) -> bool:
    """Whether `source` is a file, hence of another project; raises for what is neither file, folder nor Hub id."""
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path} is a folder without config.json; give a folder of transformers' X-CLIP, or a .pth."
            )
        return False
    if path.exists():
        return True
    if path.is_absolute() or path.suffix in (".pth", ".pt") or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no file or folder {source}, and no Hub id (those read owner/name).")
    return False


def require_free(destination: Path) -> None:
    """Raises FileExistsError unless there is nothing at `destination`, or an empty folder."""
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists() or destination.is_symlink():
        raise FileExistsError(f"{destination} exists and is not an empty folder; name a new one.")


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder beside `destination` to write into, which becomes `destination` only if the body succeeds."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as scratch:
        partial = Path(scratch) / destination.name
        partial.mkdir()
        yield partial
        if destination.is_dir():  # empty, as checked; os.rename over it would fail on Windows
            destination.rmdir()
        partial.rename(destination)


# Reading


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a `.pth` or `.pt`; memory-mapped where the file allows it.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no checkpoint, or a damaged one, holds objects of any class, or no state dict where
            projects save theirs, or one with tensors that can be no weights.
    """
    path.open("rb").close()  # raises OSError if it cannot be opened; what follows is then about its content
    is_zip = zipfile.is_zipfile(path)
    try:
        if is_zip:
            _require_whole(path)
        with torch.serialization.safe_globals(_INERT_GLOBALS):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a damaged or foreign file makes torch.load raise nearly anything
        raise ValueError(_unreadable(path, error)) from error
    content = loaded if isinstance(loaded, Mapping) else {}
    key = next((name for name in STATE_KEYS if isinstance(content.get(name), Mapping)), None)
    if key is None:
        found = f"keys {sorted(map(str, loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise ValueError(
            f"{path} has no state dict under the key `model`, as X-CLIP and ViFi-CLIP save it, or `model_state_dict`, "
            f"as Text4Vis does; it has {found}."
        )
    config = content.get("config")
    return Checkpoint(path, _tensors(path, key, content[key]), config if isinstance(config, Mapping) else {})


def _require_whole(path: Path) -> None:
    """Raises zipfile.BadZipFile if a checksum is not that of what it is of; torch.load looks at none."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} in it is damaged")


def _tensors(path: Path, key: str, state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    if not state:
        raise ValueError(f"`{key}` in {path} is an empty state dict.")
    nameless = sorted(repr(name) for name in state if not isinstance(name, str))
    if nameless:
        raise ValueError(f"`{key}` in {path} is no state dict: not a name is {', '.join(nameless)}.")
    foreign = sorted(str(name) for name, value in state.items() if not isinstance(value, torch.Tensor))
    if foreign:
        raise ValueError(f"`{key}` in {path} is no state dict: not a tensor is {', '.join(foreign)}.")
    require_weights(path, state)
    if all(name.startswith("module.") for name in state):  # saved from DistributedDataParallel
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def require_weights(source: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError, naming all tensors that can be no weights, if there are any."""
    faults = {name: _weight_fault(state[name]) for name in sorted(state)}
    found = [f"{name} {fault}" for name, fault in faults.items() if fault]
    if found:
        raise ValueError(f"{source} has tensors that can be no weights ({len(found)}): {', '.join(found)}.")


def _weight_fault(tensor: torch.Tensor) -> str | None:
    """What the user reads behind its name; None for numbers that a model can have."""
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}"
    if tensor.is_meta or tensor.numel() == 0:
        return "has no values"
    if tensor.dtype not in _DTYPES:
        return f"is of {tensor.dtype}"
    return None if tensor.isfinite().all() else "has NaN or infinite values"


def _unreadable(path: Path, error: Exception) -> str:
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused is None:
        what = error if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        return f"{path} is no readable PyTorch checkpoint ({what}); is the download complete?"
    return (
        f"{path} holds an object of {refused[1]}, which could run code when read, so it was not read. If you trust the "
        "file, load it where it came from and save its weights alone: torch.save({'model': checkpoint['model']}, ...)."
    )


# Filling a model


def fill_model(model_class: Any, config: Any, weights: Mapping[str, torch.Tensor], *, source: Any, project: str) -> Any:
    """The model with these weights, in their widest precision.

    Raises:
        ValueError: naming all that are missing, left over, or of another shape.
    """
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in model_class(config).state_dict().items()}
    require_fit(
        source,
        project,
        missing=wanted.keys() - weights.keys(),
        left_over=weights.keys() - wanted.keys(),
        shapes=[
            shape_fault(name, weights[name].shape, shape)
            for name, shape in wanted.items()
            if name in weights and weights[name].shape != shape
        ],
    )
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in weights.values()))
    return model_class.from_pretrained(None, config=config, state_dict=dict(weights), dtype=dtype)


def shape_fault(name: str, found: Iterable[int], wanted: Iterable[int]) -> str:
    """How an error names a tensor of another shape."""
    return f"{name} {tuple(found)} instead of {tuple(wanted)}"


def require_fit(
    source: Any,
    project: str,
    *,
    missing: Iterable[str] = (),
    left_over: Iterable[str] = (),
    shapes: Iterable[str] = (),
) -> None:
    """Raises ValueError with everything that does not fit, sorted, if anything does not."""
    faults = {"missing": sorted(missing), "left over": sorted(left_over), "other shapes": sorted(shapes)}
    lines = [f"{kind} ({len(names)}): {', '.join(names)}" for kind, names in faults.items() if names]
    if lines:
        raise ValueError("\n".join([f"{source} does not fit {project}; nothing was written.", *lines]))
