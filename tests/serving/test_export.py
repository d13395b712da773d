"""Exported graphs: equal to the model for any batch, whole or not there, usable without kinetext."""

import contextlib
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from rendered_clips import render_clip
from testing_utils import (
    TINY_FRAMES,
    tiny_model,
    tiny_moted,
    tiny_video_clip,
    tiny_video_clip_config,
    tiny_videos,
)

from kinetext import TextBank, VideoCLIPForVideoClassification, VideoTextProcessor
from kinetext.evaluation.evaluator import PLAIN
from kinetext.serving import export, export_model, load_exported

FRAMES = 4  # not the trained number
NAMES = ("run", "jump", "sit down")
TOKENS = torch.tensor([[97, 3, 98, 98], [97, 4, 5, 98], [97, 7, 8, 98]])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread and wait for it where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encode(model: Any, **tokens: torch.Tensor) -> TextBank:
    return model.encode_texts(TOKENS, names=NAMES, **tokens)


def described(model: Any) -> TextBank:
    """With descriptions of which one class lacks one."""
    descriptions = torch.tensor([[[97, 3, 98], [97, 4, 98]]] * 3)
    mask = torch.ones_like(descriptions)
    mask[1, 1] = 0
    return encode(model, description_input_ids=descriptions, description_attention_mask=mask)


def processor(num_frames: int = TINY_FRAMES, **settings: Any) -> VideoTextProcessor:
    return VideoTextProcessor(num_frames=num_frames, crop_size=32, **settings)


MODELS = {
    "xclip": lambda: tiny_model(),
    "moted that merges": lambda: tiny_moted(motion_max_key_tokens=10),
    "serial moted": lambda: tiny_moted(motion_encoder="serial"),
    "mean": lambda: tiny_video_clip("mean"),
    "transformer": lambda: tiny_video_clip("transformer"),
    "one_frame": lambda: tiny_video_clip("one_frame"),
    "joint": lambda: tiny_video_clip("joint"),
}


def parts_of(name: str) -> tuple[Any, VideoTextProcessor, TextBank]:
    model = MODELS[name]()
    is_moted = name.endswith(("moted", "merges"))
    made_by = processor(FRAMES, motion_frame_ratio=2 if is_moted else 1)
    return model, made_by, (described if is_moted else encode)(model)


@torch.inference_mode()
def largest_difference(exported: Any, model: Any, bank: TextBank, batch_size: int, num_frames: int) -> float:
    videos = tiny_videos(batch_size, num_frames)
    expected = model(pixel_values=videos, text_bank=bank).logits_per_video
    assert expected.std() > 0.01  # there is something to tell apart
    return (exported.logits(videos) - expected).abs().max().item()


def quick(*names: str) -> list[Any]:
    """All models, of which the others are slow: tracing and onnxscript take seconds for each."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", quick("xclip", "moted that merges"))
def test_pt2_equals_the_model_for_any_batch(name: str, tmp_path: Path) -> None:
    model, made_by, bank = parts_of(name)
    exported = export_model(model, made_by, bank, tmp_path / "out", file_format="pt2")
    frames = FRAMES * made_by.motion_frame_ratio
    assert max(largest_difference(exported, model, bank, size, frames) for size in (1, 2, 5)) <= 1e-4


@pytest.mark.parametrize("name", quick("transformer"))
def test_onnx_equals_the_model_for_any_batch(name: str, tmp_path: Path) -> None:
    model, made_by, bank = parts_of(name)
    exported = export_model(model, made_by, bank, tmp_path / "out")
    frames = FRAMES * made_by.motion_frame_ratio
    assert max(largest_difference(exported, model, bank, size, frames) for size in (1, 2, 5)) <= 1e-4


def test_classifier_is_exported_with_its_own_classes(tmp_path: Path) -> None:
    config = tiny_video_clip_config(num_labels=3, id2label={0: "a", 1: "b", 2: "c"})
    model = VideoCLIPForVideoClassification(config).eval()
    exported = export_model(model, processor(), None, tmp_path / "out", file_format="pt2")
    assert exported.class_names == ("a", "b", "c")
    with torch.inference_mode():
        expected = model(pixel_values=tiny_videos(3)).logits
    torch.testing.assert_close(exported.logits(tiny_videos(3)), expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def exported_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX graph of a tiny VideoCLIP, 5 frames."""
    model = tiny_video_clip()
    folder = tmp_path_factory.mktemp("export") / "out"
    export_model(model, processor(), encode(model), folder, num_frames=5)
    return folder


def test_exported_graph_classifies_files_as_the_model_does(exported_folder: Path, tmp_path: Path) -> None:
    model, clip = tiny_video_clip(), render_clip(tmp_path / "clip.mp4")
    views = processor(5)(videos=[str(clip)])["pixel_values"]
    with torch.inference_mode():
        logits = model(pixel_values=views, text_bank=encode(model)).logits_per_video
    expected = dict(zip(NAMES, PLAIN.log_probabilities(logits, 1)[0].exp().tolist(), strict=True))
    (answer,) = load_exported(exported_folder)(str(clip))
    assert [one["label"] for one in answer] == sorted(NAMES, key=lambda name: -expected[name])
    assert {one["label"]: one["score"] for one in answer} == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def pt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pt2` of the same model, exported to the current folder."""
    model = tiny_video_clip()
    folder = tmp_path_factory.mktemp("export")
    with contextlib.chdir(folder):
        export_model(model, processor(), encode(model), ".", file_format="pt2")
    return folder


def test_export_fills_the_current_folder(pt2_folder: Path) -> None:
    assert {path.name for path in pt2_folder.iterdir()} == {"model.pt2", "export.json"}
    assert load_exported(pt2_folder).folder == pt2_folder


def test_file_holds_no_text_tower_and_no_source_lines(exported_folder: Path, pt2_folder: Path) -> None:
    for path in (exported_folder / "model.onnx", pt2_folder / "model.pt2"):
        content = path.read_bytes()
        assert b"vision_model" in content
        assert [part for part in (b"text_model", b"modeling_video_clip.py") if part in content] == []


def test_server_without_kinetext_and_torch_can_use_the_folder(exported_folder: Path, tmp_path: Path) -> None:
    videos = tiny_videos(2, 5)
    np.save(tmp_path / "videos.npy", videos.numpy())
    code = f"""
import json, pathlib, sys
import numpy, onnxruntime
folder = pathlib.Path({str(exported_folder)!r})
facts = json.loads((folder / "export.json").read_text())
session = onnxruntime.InferenceSession(folder / facts["graph"], providers=["CPUExecutionProvider"])
(name, about), (output, _) = *facts["inputs"].items(), *facts["outputs"].items()
videos = numpy.load({str(tmp_path / "videos.npy")!r})
assert list(videos.shape[1:]) == about["shape"][1:] and str(videos.dtype) == about["dtype"]
assert facts["processor"]["sampling"] == "segments" and len(facts["processor"]["image_mean"]) == 3
logits = session.run([output], {{name: videos}})[0]
assert "torch" not in sys.modules and "kinetext" not in sys.modules
print(json.dumps([facts["class_names"], logits.tolist()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names, logits = json.loads(done.stdout)
    model = tiny_video_clip()
    with torch.inference_mode():
        expected = model(pixel_values=videos, text_bank=encode(model)).logits_per_video
    assert tuple(names) == NAMES
    torch.testing.assert_close(torch.tensor(logits), expected, atol=1e-4, rtol=0)


def test_graph_that_disagrees_with_the_model_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_video_clip()
    monkeypatch.setattr(export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(FloatingPointError, match="differ by"):
        export_model(model, processor(), encode(model), tmp_path / "out", file_format="pt2")
    assert list(tmp_path.iterdir()) == []


def test_other_shapes_than_the_exported_are_refused(exported_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 4, 3, 32, 32\).*\(B, 5, 3, 32, 32\)"):
        load_exported(exported_folder).logits(tiny_videos(1, 4))


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    model = tiny_video_clip()
    bank, out = encode(model), tmp_path / "out"
    with pytest.raises(ValueError, match="training mode"):
        export_model(tiny_video_clip().train(), processor(), bank, out)
    with pytest.raises(ValueError, match=r"bfloat16.*float32"):
        export_model(tiny_video_clip().bfloat16(), processor(), bank, out)
    with pytest.raises(ValueError, match="made by text weights"):
        export_model(tiny_model(), processor(), bank, out)
    with pytest.raises(ValueError, match="reads class texts"):
        export_model(model, processor(), None, out)
    with pytest.raises(ValueError, match="motion_frame_ratio"):
        export_model(model, processor(motion_frame_ratio=2), bank, out)
    with pytest.raises(ValueError, match='sampling="all"'):
        export_model(model, processor(sampling="all"), bank, out)
    with pytest.raises(ValueError, match=r"num_frames=2\.5"):
        export_model(model, processor(), bank, out, num_frames=2.5)
    with pytest.raises(ValueError, match=r"export model\.merge_and_unload\(\)"):
        adapted = get_peft_model(tiny_video_clip(), LoraConfig(r=2, target_modules=["q_proj"])).eval()
        export_model(adapted, processor(), bank, out)
    with pytest.raises(ValueError, match="choose one of onnx, pt2"):
        export_model(model, processor(), bank, out, file_format="tflite")
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export_model(model, processor(), bank, out)


def test_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="kinetext export"):
        load_exported(tmp_path)
    (tmp_path / "export.json").write_text('{"format": "kinetext-export-9"}')
    with pytest.raises(ValueError, match="this version reads"):
        load_exported(tmp_path)
    (tmp_path / "export.json").write_text("[]")
    with pytest.raises(ValueError, match="describes no export"):
        load_exported(tmp_path)


def copy_of(folder: Path, destination: Path, **changed: Any) -> Path:
    """With other entries in `export.json`; those that become None are left out."""
    shutil.copytree(folder, destination)
    facts = json.loads((destination / "export.json").read_text()) | changed
    (destination / "export.json").write_text(json.dumps({key: one for key, one in facts.items() if one is not None}))
    return destination


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"graph": "../x.pt2"}, r"graph is '\.\./x\.pt2'; wanted one of model\.onnx, model\.pt2"),
        ({"class_names": ["run", "jump"]}, "3 outputs, and class_names"),
        ({"class_names": ["run", "jump", 3]}, "3 outputs, and class_names"),
        ({"class_names": "abc"}, "3 outputs, and class_names"),
        ({"class_names": None}, "lacks 'class_names'"),
        ({"sha256": None}, "lacks 'sha256'"),
        ({"inputs": {}}, "lacks 'pixel_values'"),
        ({"processor": {"frames": 8}}, "frames"),
    ],
)
def test_description_that_does_not_fit_the_graph_is_refused(
    exported_folder: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    (tmp_path / "x.pt2").touch()
    with pytest.raises(ValueError, match=rf"export\.json describes no export of kinetext: .*{message}"):
        load_exported(copy_of(exported_folder, tmp_path / "copy", **changed))


def test_graph_that_is_not_the_one_that_was_written_is_refused(exported_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(exported_folder, tmp_path / "copy")
    whole = (folder / "model.onnx").read_bytes()
    for content in (b"", whole[:-9]):
        (folder / "model.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.onnx is not the file that was exported"):
            load_exported(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.onnx; export the model again"):
        load_exported(folder)


@pytest.mark.parametrize("graph", ["model.onnx", "model.pt2"])
def test_graph_that_is_none_is_refused(exported_folder: Path, tmp_path: Path, graph: str) -> None:
    content = b"no graph"
    digest = hashlib.sha256(content).hexdigest()
    folder = copy_of(exported_folder, tmp_path / "copy", graph=graph, sha256=digest)
    (folder / graph).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{graph} cannot be read"):
        load_exported(folder)


def test_only_float32_tensors_are_read(exported_folder: Path) -> None:
    exported, videos = load_exported(exported_folder), tiny_videos(1, 5)
    with pytest.raises(TypeError, match=r"is a ndarray; pass torch\.as_tensor"):
        exported.logits(videos.numpy())
    with pytest.raises(TypeError, match=r'float64 on cpu.*pass pixel_values\.to\("cpu", torch\.float32\)'):
        exported.logits(videos.double())
    with pytest.raises(TypeError, match="float32 on meta"):
        exported.logits(videos.to("meta"))
    torch.testing.assert_close(exported.logits(videos.clone().requires_grad_()), exported.logits(videos))


def test_export_can_be_sent_to_another_process(exported_folder: Path) -> None:
    exported, videos = load_exported(exported_folder), tiny_videos(1, 5)
    copied = pickle.loads(pickle.dumps(exported))
    torch.testing.assert_close(copied.logits(videos), exported.logits(videos))
