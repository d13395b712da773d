"""Checkpoints of other projects to a kinetext folder, strictly: every key is used and every weight is filled.

    .pth of X-CLIP, ViFi-CLIP or Text4Vis -> names and shapes checked; renamed, split, transposed --+
                                                                                                    +-> folder
    transformers xclip folder or Hub repository -> loaded, report of the loading checked -----------+

The folder has config, safetensors, code, and the processor where there is a tokenizer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils.hub import cached_file

from ..modeling.configuration_video_clip import VideoCLIPConfig
from ..modeling.configuration_xclip import XCLIPConfig
from ..processing.processing_video_text import VideoTextProcessor
from . import text4vis, vifi_clip, xclip
from .checkpoints import Checkpoint, Converted, is_file, new_folder, read_checkpoint, require_free

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
# Beginnings of keys by which a project is known. The first that has one of them is it: all have an image tower.
_SIGNS = (
    (vifi_clip.PROJECT, ("image_encoder.", "text_encoder.", "prompt_learner.")),
    (text4vis.PROJECT, ("fusion_model.",)),
    (xclip.PROJECT, ("mit.", "prompts_", "transformer.", "token_embedding.")),
    (text4vis.PROJECT, ("visual.",)),
)


@dataclass(frozen=True)
class Conversion:
    """What [`convert_checkpoint`] wrote.

    Attributes:
        destination: the folder.
        project: whose checkpoint it was: "X-CLIP", "ViFi-CLIP" or "Text4Vis".
        num_parameters: of the model in it.
        num_frames: frames per clip that the model was trained with.
        has_processor: whether the folder also has the processor; without a tokenizer it has not.
        notes: what the user should know, one sentence each.
    """

    destination: Path
    project: str
    num_parameters: int
    num_frames: int
    has_processor: bool
    notes: tuple[str, ...] = ()


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    clip: str | os.PathLike[str] | None = None,
    num_frames: int | None = None,
    config: Any = None,
) -> Conversion:
    """Writes the model of `source` as a folder that kinetext loads; nothing is written on failure.

    Args:
        source: a `.pth` or `.pt` of X-CLIP, ViFi-CLIP or Text4Vis, which is told from its keys; or a folder of
            transformers' or our X-CLIP, or its Hub id.
        destination: the folder to make; must not exist or be empty.
        tokenizer: folder or Hub id of the tokenizer to save with the model; a file has none. That of `clip` by default.
        clip: folder or Hub id of the CLIP that a ViFi-CLIP or Text4Vis was trained from: the file lacks parts of it.
        num_frames: frames per clip of a ViFi-CLIP or Text4Vis, whose weights do not tell.
        config: replaces the configuration found in a folder, or made from the file and the CLIP: an `XCLIPConfig`, or a
            `VideoCLIPConfig`.

    Raises:
        TypeError: if `config` is not of that class.
        FileNotFoundError: if there is no such source.
        FileExistsError: if `destination` has something in it.
        OSError: if a Hub repository cannot be read.
        ValueError: for a file of none of these projects, that is damaged, or that holds code; for tensors that can be
            no weights; for a file that does not fit, naming all missing and left-over keys and other shapes; for a CLIP
            or a tokenizer that is not named, or does not fit.
    """
    destination = Path(destination)
    require_free(destination)
    if is_file(source):
        project, converted = _convert_file(Path(source), clip=clip, num_frames=num_frames, config=config)
        origin = None
    else:
        _refuse(str(source), clip=clip, num_frames=num_frames)
        _require_config(config, XCLIPConfig)
        project, converted = xclip.PROJECT, xclip.load_folder(str(source), config)
        origin = source
    notes = list(converted.notes)
    processor = _processor(converted, origin=origin, tokenizer=tokenizer, clip=clip)
    if processor is None:
        notes.append(
            "the source has no tokenizer, so no processor was saved; convert again with a tokenizer (--tokenizer): "
            f"published {project} models use CLIP's, openai/clip-vit-base-patch32."
        )
    with new_folder(destination) as folder:
        converted.model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    frames = converted.contract["num_frames"]
    parameters = converted.model.num_parameters()
    return Conversion(destination, project, parameters, frames, processor is not None, tuple(notes))


# Files


def _convert_file(
    path: Path, *, clip: str | os.PathLike[str] | None, num_frames: int | None, config: Any
) -> tuple[str, Converted]:
    """The project that the file is of, and its model."""
    checkpoint = read_checkpoint(path)
    project = _project_of(checkpoint)
    if project == xclip.PROJECT:
        _refuse(f"{path} is of X-CLIP and", clip=clip, num_frames=num_frames)
        _require_config(config, XCLIPConfig)
        return project, xclip.convert_xclip(checkpoint, config)
    _require_config(config, VideoCLIPConfig)
    convert = vifi_clip.convert_vifi_clip if project == vifi_clip.PROJECT else text4vis.convert_text4vis
    return project, convert(checkpoint, clip, num_frames=num_frames, config=config)


def _project_of(checkpoint: Checkpoint) -> str:
    for project, beginnings in _SIGNS:
        if any(key.startswith(beginnings) for key in checkpoint.state):
            return project
    shown = ", ".join(sorted(checkpoint.state)[:3])
    raise ValueError(
        f"{checkpoint.path} is no checkpoint of X-CLIP, ViFi-CLIP or Text4Vis: its {len(checkpoint.state)} keys start "
        f"like none of theirs ({shown}, ...)."
    )


def _refuse(what: str, **given: Any) -> None:
    """Raises ValueError for options that only files of other projects need."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if names:
        raise ValueError(f"{what} has its own text tower and number of frames; leave {' and '.join(names)} out.")


def _require_config(config: Any, wanted: Any) -> None:
    """Raises TypeError for a configuration of another model."""
    if config is not None and getattr(config, "model_type", None) != wanted.model_type:
        raise TypeError(f"config must be a {wanted.__name__}; got {type(config).__name__}.")


# The processor


def _processor(
    converted: Converted,
    *,
    origin: str | os.PathLike[str] | None,
    tokenizer: str | os.PathLike[str] | None,
    clip: str | os.PathLike[str] | None,
) -> VideoTextProcessor | None:
    """The processor of a folder, or one after the contract of a file's project; None where there is no tokenizer.

    Args:
        converted: the model and its contract.
        origin: the folder or repository it came from; None for a file.
        tokenizer: the user's, in place of all others.
        clip: the user's, which may have one.

    Raises:
        ValueError: if `tokenizer` names none, or if the model has no embedding for one of its tokens.
    """
    if tokenizer is not None and not _has_tokenizer(tokenizer):
        raise ValueError(f"{tokenizer} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); name one that has.")
    sources = (tokenizer, origin, clip)
    named = next((one for one in sources if one is not None and (one is tokenizer or _has_tokenizer(one))), None)
    if named is None:
        return None
    processor = (
        VideoTextProcessor(**converted.contract) if origin is None else VideoTextProcessor.from_pretrained(origin)
    )
    if named is not origin:
        processor.tokenizer = AutoTokenizer.from_pretrained(named)
    _require_tokenizer_fits(processor.tokenizer, converted.model.config.text_config)
    return processor


def _has_tokenizer(source: str | os.PathLike[str]) -> bool:
    """Whether there are tokenizer files; where there are none, transformers would make a tokenizer of two tokens."""
    options = {"_raise_exceptions_for_missing_entries": False}
    return any(cached_file(os.fspath(source), name, **options) is not None for name in _TOKENIZER_FILES)


def _require_tokenizer_fits(tokenizer: Any, text_config: Any) -> None:
    """Raises ValueError for more tokens than embeddings, and lowers the longest text length to the model's."""
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has {len(tokenizer)} tokens, the model embeds "
            f"{text_config.vocab_size}; give the tokenizer that it was trained with."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_config.max_position_embeddings)
