"""A model with its class texts as one graph, which runs without kinetext and without a text tower.

    model, bank ──export_model──► folder: model.onnx or model.pt2, export.json ──load_exported──► scores of videos

The number of videos in a batch is free; frames, image size and class texts are fixed by the export. What a server
needs to make `pixel_values` itself (frames, sampling, size, mean, standard deviation) is in `export.json`.

Legend: B videos, T frames of a clip with its motion frames, S side of the square a model sees, N classes.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conversion.checkpoints import new_folder, require_free
from ..descriptions.files import write_atomically
from ..evaluation.class_texts import check_motion_frames
from ..modeling.configuration_video_text import class_names_of
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor, as_batch
from ..processing.video_decoding import DECODERS

__all__ = ["EXPORT_FORMATS", "ExportedClassifier", "export_model", "load_exported"]

EXPORT_FORMATS = ("onnx", "pt2")
MANIFEST_NAME = "export.json"
MAX_DIFFERENCE = 1e-4  # of logits, from those of the model, for a file to be kept
_MANIFEST_FORMAT = "kinetext-export-1"
_GRAPHS = {file_format: f"model.{file_format}" for file_format in EXPORT_FORMATS}
_INPUT, _OUTPUT = "pixel_values", "logits_per_video"
_EXAMPLE_BATCH = 2  # a batch of 1 would be taken for a constant
_CHECKED_BATCHES = (1, 3)
_TEXT_SIDE = ("text_model", "text_projection")
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}  # that a format needs beside torch


class ExportedClassifier:
    """An exported graph and the processor that makes its input; made by [`load_exported`].

    It can be pickled, for worker processes: they load the folder again.

    Attributes:
        folder: where it is, absolute.
        manifest: the content of `export.json`.
        class_names: N names in the order of the logits.
        processor: from files to `pixel_values`; it has no tokenizer.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], run: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.folder = folder.absolute()
        self.manifest = dict(manifest)
        self.class_names = tuple(manifest["class_names"])
        self.processor = VideoTextProcessor(**manifest["processor"])
        self._shape = tuple(manifest["inputs"][_INPUT]["shape"][1:])
        self._run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return load_exported, (self.folder,)

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits (B, N) float32 of `pixel_values` (B, T, 3, S, S) float32, both on the CPU.

        Raises:
            TypeError: for anything but such a tensor.
            ValueError: for another shape than the exported one.
        """
        if not isinstance(pixel_values, torch.Tensor):
            raise TypeError(f"pixel_values is a {type(pixel_values).__name__}; pass torch.as_tensor(pixel_values).")
        if pixel_values.dtype != torch.float32 or pixel_values.device.type != "cpu":
            raise TypeError(
                f"pixel_values is {pixel_values.dtype} on {pixel_values.device}; this graph reads torch.float32 on the "
                'CPU, as the processor makes it: pass pixel_values.to("cpu", torch.float32).'
            )
        if pixel_values.shape[1:] != self._shape or len(pixel_values) == 0:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; this graph was exported for (B, "
                f"{', '.join(map(str, self._shape))}). Export the model again for other frames or sizes."
            )
        return self._run(pixel_values.detach())

    def __call__(self, videos: Any, *, decoder: str = DECODERS[0]) -> list[list[dict[str, Any]]]:
        """Of each video `[{"score": probability, "label": class name}, …]`, the highest score first.

        Args:
            videos: what `VideoTextProcessor` takes: a path, URL, bytes, array, …, or a list of these.
            decoder: "pyav" or "decord".

        Raises:
            VideoDecodeError: if a file cannot be decoded.
        """
        answers = []
        for video in as_batch(videos):
            pixel_values = self.processor(videos=[video], decoder=decoder)[_INPUT]
            scores = self.logits(pixel_values)[0].double().softmax(dim=-1).tolist()
            ranked = sorted(zip(scores, self.class_names, strict=True), key=lambda pair: -pair[0])
            answers.append([{"score": score, "label": label} for score, label in ranked])
        return answers


def export_model(
    model: Any,
    processor: VideoTextProcessor,
    text_bank: TextBank | None,
    destination: str | os.PathLike[str],
    *,
    file_format: str = EXPORT_FORMATS[0],
    num_frames: int | None = None,
) -> ExportedClassifier:
    """Writes a folder with the graph of a model and its class texts, and `export.json`; nothing is left after an error.

    The file is read back and run before it is kept: its logits of random batches of 1 and 3 differ from the model's by
    at most 1e-4.

    Args:
        model: an X-CLIP, MoTED or VideoCLIP, in float32 on the CPU and in evaluation mode.
        processor: its processor, whose settings go into `export.json`.
        text_bank: class texts from `model.encode_texts`; they become constants. None for a classifier with a linear
            head.
        destination: the folder to make; must not exist or be empty.
        file_format: "onnx", for onnxruntime and others, or "pt2", for `torch.export.load`.
        num_frames: sampled frames of a clip; the processor's by default.

    Returns:
        The export, as it was read back.

    Raises:
        ValueError: for a model that is not as said above, a bank of another model, or an unknown format.
        FileExistsError: if `destination` has something in it.
        ImportError: if the packages that a format needs are missing.
        FloatingPointError: if the graph and the model disagree.
    """
    destination = Path(destination).absolute()
    _check(model, processor, text_bank, file_format)
    require_free(destination)
    if num_frames is not None:
        if not isinstance(num_frames, int):
            raise ValueError(f"num_frames={num_frames!r} must be a whole number.")
        processor = VideoTextProcessor(**{**processor.contract, "num_frames": num_frames})
    manifest = _manifest(model, processor, text_bank, file_format)
    shape = manifest["inputs"][_INPUT]["shape"][1:]
    with new_folder(destination) as folder:
        graph = folder / manifest["graph"]
        with _quietly():
            _write_graph(_Classifier(model, text_bank), shape, graph)
        manifest["sha256"] = _sha256(graph)
        _write_manifest(manifest, folder)
        exported = load_exported(folder)
        manifest["largest_difference"] = _largest_difference(exported, model, text_bank, shape)
        _write_manifest(manifest, folder)
    return ExportedClassifier(destination, manifest, exported._run)


def load_exported(folder: str | os.PathLike[str]) -> ExportedClassifier:
    """What [`export_model`] wrote. Load a `.pt2` only from people you trust: reading one can run code.

    Raises:
        FileNotFoundError: if there is none, or its graph is missing.
        ValueError: if the folder holds something else, or its graph is not the one that was written.
        ImportError: if onnxruntime is missing for an ONNX graph.
    """
    folder = Path(folder)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; `kinetext export MODEL OUT --labels …` makes such a folder.")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != _MANIFEST_FORMAT:
            raise ValueError(f"it has format {manifest['format']!r}; this version reads {_MANIFEST_FORMAT!r}")
        if manifest["graph"] not in _GRAPHS.values():
            raise ValueError(f"its graph is {manifest['graph']!r}; wanted one of {', '.join(_GRAPHS.values())}")
        run, num_classes = _open_graph(folder / manifest["graph"], manifest["sha256"])
        names = manifest["class_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != num_classes:
            raise ValueError(f"its graph has {num_classes} outputs, and class_names is {names!r}: one string for each")
        return ExportedClassifier(folder, manifest, run)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} describes no export of kinetext: {reason}. Export the model again.") from error


class _Classifier(nn.Module):
    """The graph that is exported: pixel values (B, T, 3, S, S) -> logits (B, N)."""

    def __init__(self, model: Any, text_bank: TextBank | None) -> None:
        super().__init__()
        self.model = _without_text_side(model)
        self.text_bank = text_bank

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.text_bank is None:
            return self.model(pixel_values=pixel_values).logits
        return self.model(pixel_values=pixel_values, text_bank=self.text_bank).logits_per_video


def _without_text_side(model: Any) -> Any:
    """The same model, sharing its weights, less the text tower, whose weights would else go into the file."""
    video_side = copy.copy(model)
    video_side._modules = {name: part for name, part in model._modules.items() if name not in _TEXT_SIDE}
    return video_side


def _check(model: Any, processor: VideoTextProcessor, text_bank: TextBank | None, file_format: str) -> None:
    if file_format not in EXPORT_FORMATS:
        raise ValueError(f"format {file_format!r} is unknown; choose one of {', '.join(EXPORT_FORMATS)}.")
    _require_packages(*_PACKAGES[file_format])
    if model.training:
        raise ValueError("the model is in training mode, in which dropout is random; call model.eval() first.")
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ValueError(
            f"the model is {model.dtype} on {model.device}; it is exported in float32 from the CPU: "
            'load it with dtype=torch.float32, or call model.float().to("cpu").'
        )
    check_motion_frames(model, processor)
    if processor.sampling == "all":
        raise ValueError('sampling="all" gives clips of any length, and a graph has one; set another in the processor.')
    if hasattr(model, "merge_and_unload"):
        raise ValueError("the model has adapters of PEFT beside its weights; export model.merge_and_unload().")
    reads_texts = hasattr(model, "encode_texts")
    if reads_texts != (text_bank is not None):
        rule = "reads class texts: pass their bank (--labels)" if reads_texts else "has classes of its own: pass None"
        raise ValueError(f"text_bank does not fit: this {type(model).__name__} {rule}.")
    if text_bank is not None:
        model.check_text_bank(text_bank)


def _require_packages(*names: str) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"{name} cannot be imported ({error}); run pip install 'kinetext[export]'.") from error


def _manifest(
    model: Any, processor: VideoTextProcessor, text_bank: TextBank | None, file_format: str
) -> dict[str, Any]:
    names = class_names_of(model.config) if text_bank is None else list(text_bank.names)
    frames = processor.num_frames * processor.motion_frame_ratio
    packages = ("kinetext", "torch", "transformers", *_PACKAGES[file_format])
    pixel_shape = ["batch", frames, 3, processor.crop_size, processor.crop_size]
    return {
        "format": _MANIFEST_FORMAT,
        "graph": _GRAPHS[file_format],
        "inputs": {_INPUT: {"dtype": "float32", "shape": pixel_shape}},
        "outputs": {_OUTPUT: {"dtype": "float32", "shape": ["batch", len(names)]}},
        "class_names": names,
        "processor": processor.contract,
        "model_type": model.config.model_type,
        "text_fingerprint": None if text_bank is None else text_bank.text_fingerprint,
        "tokenizer_fingerprint": None if text_bank is None else text_bank.tokenizer_fingerprint,
        "versions": {name: version(name) for name in packages},
    }


def _write_manifest(manifest: dict[str, Any], folder: Path) -> None:
    write_atomically(folder / MANIFEST_NAME, (json.dumps(manifest, indent=2) + "\n").encode())


@torch.no_grad()
def _write_graph(classifier: _Classifier, shape: list[int], path: Path) -> None:
    """Writes the graph for clips of `shape` (T, 3, S, S); the suffix of `path` says in which format."""
    example = (torch.zeros(_EXAMPLE_BATCH, *shape),)
    if path.suffix == ".onnx":
        names: dict[str, Any] = {"input_names": [_INPUT], "output_names": [_OUTPUT]}
        dynamic: Any = {_INPUT: {0: "batch"}}
        exported: Any = torch.onnx.export(
            classifier, example, dynamo=True, verbose=False, dynamic_shapes=dynamic, **names
        )
        for node in exported.model.graph.all_nodes():
            node.metadata_props.clear()  # the files and lines that it comes from
        exported.save(path)
        return
    program = torch.export.export(classifier, example, dynamic_shapes={_INPUT: {0: torch.export.Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the files and lines that it comes from
    program.example_inputs = None  # they would be saved, too
    torch.export.save(program, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_graph(path: Path, sha256: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    """(what computes the logits, N); nothing but the graph that was exported is opened."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; export the model again.")
    if _sha256(path) != sha256:
        raise ValueError(f"{path.name} is not the file that was exported, whose SHA-256 is {sha256!r}")
    open_it = _open_onnx if path.suffix == ".onnx" else _open_pt2
    try:
        return open_it(path)
    except ImportError:
        raise
    except Exception as error:  # a foreign file makes both raise nearly anything
        raise ValueError(f"{path.name} cannot be read ({error})") from error


def _open_onnx(path: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    _require_packages("onnxruntime")
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()

    def run(pixel_values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([_OUTPUT], {_INPUT: pixel_values.numpy()})[0])

    return run, output.shape[-1]


def _open_pt2(path: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], int]:
    program = torch.export.load(path)
    (output,) = next(iter(reversed(program.graph.nodes))).args[0]
    return torch.inference_mode()(program.module()), output.meta["val"].shape[-1]


@torch.inference_mode()
def _largest_difference(
    exported: ExportedClassifier, model: Any, text_bank: TextBank | None, shape: list[int]
) -> float:
    """Between the logits of both, for random pixels.

    Raises:
        FloatingPointError: if it is too large, or no number.
    """
    classifier = _Classifier(model, text_bank)
    classifier.model = model  # with its text side, which tells whether the bank is its own
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch_size in _CHECKED_BATCHES:
        pixel_values = torch.randn(batch_size, *shape, generator=generator)
        differences.append((exported.logits(pixel_values) - classifier(pixel_values)).abs().max())
    largest = torch.stack(differences).max().item()
    if not largest <= MAX_DIFFERENCE:
        raise FloatingPointError(
            f"the exported graph gives other logits than the model: they differ by {largest:.2g}, at most "
            f"{MAX_DIFFERENCE:g} is right. Nothing was written; please report this with the model's configuration."
        )
    return largest


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say of themselves: missing torchvision, deprecations, folded constants."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
