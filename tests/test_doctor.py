"""The rows of `kinetext doctor`."""

import importlib.metadata

import pytest
import torch

from kinetext import doctor
from kinetext.doctor import Check, diagnose


def row(name: str) -> Check:
    (found,) = [check for check in diagnose() if check.name == name]
    return found


def without(monkeypatch: pytest.MonkeyPatch, *packages: str, **versions: str) -> None:
    """Makes `packages` look absent and `versions` look installed."""

    def version(package: str) -> str:
        if package in packages:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions.get(package) or importlib.metadata.version(package)

    monkeypatch.setattr(doctor, "version", version)


def test_rows_name_versions_devices_and_decoders() -> None:
    names = [check.name for check in diagnose()]
    assert len(set(names)) == len(names)
    assert {"python", "kinetext", "torch", "transformers", "accelerate", "cuda", "mps", "cpu", "hub token"} <= set(
        names
    )
    assert {"decoder pyav (default)", "decoder decord"} <= set(names)
    assert row("torch") == Check("torch", torch.__version__)


def test_every_row_that_is_missing_or_warns_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "datasets", "openai", "av", decord="0.6.0")
    monkeypatch.setattr(doctor, "available_decoders", lambda: {"pyav": None, "decord": None})
    monkeypatch.setattr(doctor, "decoder_fault", lambda name: "OSError: libavcodec.so.59 is missing")
    assert row("datasets") == Check("datasets", "not installed", "missing", "pip install datasets")
    assert row("openai") == Check("openai", "not installed", "optional", 'pip install "kinetext[descriptions]"')
    assert row("decoder pyav (default)") == Check(
        "decoder pyav (default)", "not installed", "missing", "pip install av"
    )
    assert (row("decoder decord").value, row("decoder decord").status) == (
        "0.6.0, does not load: OSError: libavcodec.so.59 is missing",
        "optional",
    )
    assert [check for check in diagnose() if check.status in ("missing", "warning") and not check.hint] == []


def test_torchvision_is_a_warning_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchvision")
    assert row("torchvision") == Check("torchvision", "not installed, not needed")

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    without(monkeypatch, torchvision="0.28.0")
    monkeypatch.setattr(doctor, "import_module", broken)
    found = row("torchvision")
    assert (found.value, found.status) == ("0.28.0, broken: operator torchvision::nms does not exist", "warning")
    monkeypatch.setattr(doctor, "import_module", lambda name: None)
    assert (row("torchvision").value, row("torchvision").status) == ("0.28.0", "warning")


def test_hub_token_is_reported_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = "hf_" + "madeup" * 5
    monkeypatch.setattr("huggingface_hub.get_token", lambda: made_up)
    assert row("hub token") == Check("hub token", "yes")
    assert made_up not in repr(diagnose())
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert (row("hub token").value, row("hub token").status) == ("no", "optional")


def test_cuda_devices_are_counted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU-{index}")
    assert row("cuda") == Check("cuda", "2: GPU-0, GPU-1")


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    diagnose()
    assert capsys.readouterr() == ("", "")
