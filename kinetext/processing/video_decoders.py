"""The decoders by name: importing them when they are used, and the one error that a video's content can cause.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only the standard library; the decoders are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["DECODERS", "VideoDecodeError", "available_decoders"]

DECODERS = ("pyav", "decord", "torchcodec")
"""Decoders by name; the first is the default and the reference."""

CONTENT_ERRORS = (ValueError, LookupError, ArithmeticError, RuntimeError, OSError, EOFError, AssertionError)
"""With each library's own errors, all that a file's content is known to raise."""

DECODER_PACKAGES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}
"""The package of each decoder, which is also its module."""


class VideoDecodeError(Exception):
    """What a video's content did not allow: the only error that content can cause.

    It can be made from its message alone, as torch does when it carries an error out of a DataLoader worker; the
    attributes are then None and the message holds what they held.

    Args:
        message: The whole message.
        source: Path, URL or description of the video.
        reason: What is wrong with it.
        decoder: Name of the decoder that was used.
    """

    def __init__(
        self, message: str, *, source: str | None = None, reason: str | None = None, decoder: str | None = None
    ) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason
        self.decoder = decoder


def decode_error(name: str, decoder: str, reason: str) -> VideoDecodeError:
    """The error of a video `name`; where another decoder than the reference fails, the reference is the way out."""
    if decoder != DECODERS[0]:
        reason = f"{reason}; use decoder={DECODERS[0]!r}"
    return VideoDecodeError(
        f"cannot decode {name} with decoder={decoder!r}: {reason}", source=name, reason=reason, decoder=decoder
    )


def reason_of(error: Exception) -> str:
    """What a library says of a fault, in one line and without its source files and stack."""
    text = getattr(error, "strerror", None) or str(error).partition("Stack trace")[0]
    return f"{type(error).__name__}: {' '.join(text.split()) or 'no message'}"


def available_decoders() -> dict[str, str | None]:
    """Version of each decoder by name, None for one that cannot be imported. Never raises."""
    return {name: None if decoder_fault(name) else _decoder_version(name) for name in DECODERS}


def decoder_fault(name: str) -> str | None:
    """Why a decoder cannot be imported, in one line; None for one that can. Never raises."""
    try:
        _decoder_version(name)
    except Exception as error:  # a broken native library raises OSError, RuntimeError and others, not only ImportError
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    """What an import failed of; some libraries add pages of advice."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _decoder_version(name: str) -> str:
    return str(importlib.import_module(DECODER_PACKAGES[name]).__version__)


def import_decoder(name: str) -> Any:
    """The module of a decoder.

    Raises:
        ImportError: it is not installed, or its native library does not load.
    """
    try:
        return importlib.import_module(DECODER_PACKAGES[name])
    except (ImportError, OSError, RuntimeError) as error:
        others = " or ".join(f"decoder={other!r}" for other in DECODERS if other != name)
        raise ImportError(
            f"decoder {name!r} cannot be imported ({_first_line(error)}); run"
            f" `pip install {DECODER_PACKAGES[name]}`, or use {others}"
        ) from error
