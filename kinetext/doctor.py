"""What is installed here and what is missing for video and text models: facts to look at, or to paste into an issue."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from . import __version__
from .processing.video_decoders import DECODER_PACKAGES, DECODERS, available_decoders, decoder_fault

Status = Literal["ok", "missing", "optional", "warning"]

_REQUIRED = (
    "torch",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "datasets",
    "safetensors",
    "tokenizers",
    "numpy",
    "pillow",
    "tensorboard",
    "matplotlib",
)
_NUMERICAL = ("torch", "transformers", "numpy", "av", "decord")
_OPTIONAL = {  # package -> extra that brings it
    "openai": "descriptions",
    "evaluate": "eval",
    "trackio": "tracking",
}
_WHY_ABSENT = {  # decoder -> what explains that it does not load
    "decord": f"no wheel for some systems; {DECODERS[0]} is enough",
    "torchcodec": f"needs FFmpeg's libraries of the system and a build for this torch; {DECODERS[0]} is enough",
}


@dataclass(frozen=True)
class Check:
    """One fact.

    Attributes:
        name: what was looked at.
        value: what was found.
        status: "ok"; "missing", something will fail; "optional", not there and not needed; "warning", likely to break.
        hint: what to do about it, or "".
    """

    name: str
    value: str
    status: Status = "ok"
    hint: str = ""


def diagnose() -> list[Check]:
    """Versions, devices, decoders and Hub access of this environment; nothing is printed, changed or downloaded."""
    return [*_versions(), *_devices(), *_decoders(), _torchvision(), _hub_token()]


def machine() -> dict[str, str | int]:
    """What the speed, and the last digits, of a number that was measured here depend on."""
    versions = {name: _installed_version(name) for name in _NUMERICAL}
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: found for name, found in versions.items() if found is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> list[Check]:
    rows = [
        Check("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Check("kinetext", __version__),
    ]
    for package in _REQUIRED:
        found = _installed_version(package)
        missing = Check(package, "not installed", "missing", f"pip install {package}")
        rows.append(missing if found is None else Check(package, found))
    for package, extra in _OPTIONAL.items():
        found = _installed_version(package)
        missing = Check(package, "not installed", "optional", f'pip install "kinetext[{extra}]"')
        rows.append(missing if found is None else Check(package, found))
    return rows


def _devices() -> list[Check]:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cuda = Check("cuda", f"{len(names)}: {', '.join(names)}") if names else Check("cuda", "none", "optional")
    has_mps = torch.backends.mps.is_available()
    cpu = Check("cpu", f"{torch.get_num_threads()} threads")
    return [cuda, Check("mps", "yes" if has_mps else "no", "ok" if has_mps else "optional"), cpu]


def _decoders() -> list[Check]:
    """Decoders by name: which load, which one is used, and why the others do not."""
    return [_decoder(name, found) for name, found in available_decoders().items()]


def _decoder(name: str, found: str | None) -> Check:
    is_default = name == DECODERS[0]
    label = f"decoder {name}" + (" (default)" if is_default else "")
    if found is not None:
        return Check(label, found, hint="used unless another is named" if is_default else "used where it is named")
    package = DECODER_PACKAGES[name]
    installed = _installed_version(package)
    value = "not installed" if installed is None else f"{installed}, does not load: {decoder_fault(name)}"
    if is_default:
        return Check(label, value, "missing", f"pip install {package}")
    return Check(label, value, "optional", _WHY_ABSENT[name])


def _torchvision() -> Check:
    """Not needed; one that does not match torch breaks transformers, which imports it wherever it finds it."""
    found = _installed_version("torchvision")
    if found is None:
        return Check("torchvision", "not installed, not needed")
    try:
        import_module("torchvision")
    except Exception as error:  # a mismatched build raises RuntimeError, ImportError or OSError
        return Check(
            "torchvision",
            f"{found}, broken: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "warning",
            "pip uninstall torchvision: transformers imports it and fails; kinetext does not need it",
        )
    return Check("torchvision", found, "warning", "not needed here; a build for another torch breaks transformers")


def _hub_token() -> Check:
    """Whether a token is present; never the token itself."""
    from huggingface_hub import get_token

    if get_token() is not None:
        return Check("hub token", "yes")
    return Check("hub token", "no", "optional", "hf auth login, to push and to read private repositories")
