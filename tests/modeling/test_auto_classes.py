"""Auto classes in processes of their own: with kinetext imported early or late, and without it (remote code)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import (
    largest_difference,
    tiny_config,
    tiny_model,
    tiny_moted,
    tiny_texts,
    tiny_video_clip_config,
    tiny_videos,
)
from transformers.models.x_clip import configuration_x_clip, modeling_x_clip

from kinetext import VideoTextProcessor
from kinetext.data.small_tokenizer import small_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
CLASS_NAMES = ["moving left", "moving right", "growing"]
DESCRIPTIONS = [["shift towards one side", "direction of motion"], ["shift towards the other side"], ["gets larger"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours: model and processor."""
    path = tmp_path_factory.mktemp("checkpoint")
    tokenizer = small_tokenizer(CLASS_NAMES)
    model = tiny_model(text={"vocab_size": len(tokenizer), "max_position_embeddings": 77})
    model.save_pretrained(path)
    VideoTextProcessor(tokenizer=tokenizer, num_frames=8, crop_size=32, short_side=36).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of transformers' own X-CLIP."""
    path = tmp_path_factory.mktemp("stock")
    ours = tiny_config().to_dict()
    config = configuration_x_clip.XCLIPConfig(
        text_config=ours["text_config"], vision_config=ours["vision_config"], projection_dim=32
    )
    modeling_x_clip.XCLIPModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def moted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoTED checkpoint: model and processor."""
    path = tmp_path_factory.mktemp("moted")
    tokenizer = small_tokenizer([*CLASS_NAMES, *(text for texts in DESCRIPTIONS for text in texts)])
    tiny_moted(vocab_size=len(tokenizer), max_tokens=77, motion_max_key_tokens=9).save_pretrained(path)
    processor = VideoTextProcessor(tokenizer=tokenizer, num_frames=4, motion_frame_ratio=2, crop_size=32, short_side=36)
    processor.save_pretrained(path)
    return path


def run(code: str, where: Path, *arguments: Path | str, python_path: str = "") -> str:
    """Standard output of `code` in a fresh process in folder `where`, with a Hub cache of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(where / "hub"), "HF_MODULES_CACHE": str(where / "modules"), "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_KINETEXT = """
import importlib.abc, sys

class Unimportable(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] == "kinetext":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Unimportable())
"""

REMOTE_CODE = (
    WITHOUT_KINETEXT
    + """
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

source, tensors, saved_again = sys.argv[1:4]
videos = load_file(tensors + "/videos.safetensors")
logits = {}
for step, folder in enumerate((source, saved_again)):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model, report = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    for loaded in (config, model, processor):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    names = [type(loaded).__name__ for loaded in (config, model, processor)]
    assert names == ["XCLIPConfig", "XCLIPModel", "VideoTextProcessor"], names
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    batch = processor(videos=list(videos["frames"]), text=["moving left", "moving right", "growing"])
    with torch.no_grad():
        bank = model.encode_texts(batch["input_ids"], batch["attention_mask"])
        logits[f"ids{step}"] = model(**batch).logits_per_video
        logits[f"bank{step}"] = model(pixel_values=batch["pixel_values"], text_bank=bank).logits_per_video
        logits[f"short{step}"] = model(pixel_values=batch["pixel_values"][:, :5], text_bank=bank).logits_per_video
    if step == 0:
        model.save_pretrained(saved_again)
        processor.save_pretrained(saved_again)
assert not any(name.split(".")[0] == "kinetext" for name in sys.modules)
save_file({name: value.contiguous() for name, value in logits.items()}, tensors + "/logits.safetensors")
"""
)


def test_checkpoint_loads_as_remote_code_where_kinetext_is_not_installed(folder: Path, tmp_path: Path) -> None:
    from kinetext import XCLIPModel

    frames = torch.randint(0, 256, (2, 8, 40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"frames": frames}, tmp_path / "videos.safetensors")
    saved_again = tmp_path / "again"
    run(REMOTE_CODE, tmp_path, folder, tmp_path, saved_again)

    processor, model = VideoTextProcessor.from_pretrained(folder), XCLIPModel.from_pretrained(folder)
    batch = processor(videos=list(frames), text=CLASS_NAMES)
    expected = {"ids": model(**batch).logits_per_video}
    bank = model.encode_texts(batch["input_ids"], batch["attention_mask"])
    expected["bank"] = expected["ids"]
    expected["short"] = model(pixel_values=batch["pixel_values"][:, :5], text_bank=bank).logits_per_video
    got = load_file(tmp_path / "logits.safetensors")
    assert len(got) == 6
    for name, logits in got.items():
        assert largest_difference(logits, expected[name[:-1]]) <= 1e-5, name

    for path in (folder, saved_again):
        stock, report = modeling_x_clip.XCLIPModel.from_pretrained(path, output_loading_info=True)
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        assert largest_difference(stock(**batch).logits_per_video, expected["ids"]) <= 1e-5


MOTED_REMOTE_CODE = (
    WITHOUT_KINETEXT
    + """
import json, torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

source, tensors, saved_again = sys.argv[1:4]
given = json.load(open(tensors + "/texts.json"))
videos = load_file(tensors + "/videos.safetensors")
logits = {}
for step, folder in enumerate((source, saved_again)):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model, report = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    for loaded in (config, model, processor):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    names = [type(loaded).__name__ for loaded in (config, model, processor)]
    assert names == ["MotedConfig", "MotedModel", "VideoTextProcessor"], names
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    assert not any(p.requires_grad for p in model.vision_model.parameters())
    batch = processor(videos=list(videos["frames"]), text=given["names"], descriptions=given["descriptions"])
    texts = {name: batch[name] for name in batch if name != "pixel_values"}
    with torch.no_grad():
        outputs = {"tokens": model(**batch)}
        outputs["bank"] = model(pixel_values=batch["pixel_values"], text_bank=model.encode_texts(**texts))
        outputs["short"] = model(**{**batch, "pixel_values": batch["pixel_values"][:, :6]})
    for name, output in outputs.items():
        logits[f"{name} video {step}"] = output.video_logits_per_video
        logits[f"{name} motion {step}"] = output.motion_logits_per_video
    if step == 0:
        model.save_pretrained(saved_again)
        processor.save_pretrained(saved_again)
assert not any(name.split(".")[0] == "kinetext" for name in sys.modules)
save_file({name: value.contiguous() for name, value in logits.items()}, tensors + "/logits.safetensors")
"""
)


def test_moted_checkpoint_loads_as_remote_code_where_kinetext_is_not_installed(
    moted_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoProcessor

    from kinetext import MotedModel

    frames = torch.randint(0, 256, (2, 8, 40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"frames": frames}, tmp_path / "videos.safetensors")
    (tmp_path / "texts.json").write_text(json.dumps({"names": CLASS_NAMES, "descriptions": DESCRIPTIONS}))
    saved_again = tmp_path / "again"
    run(MOTED_REMOTE_CODE, tmp_path, moted_folder, tmp_path, saved_again)

    got = load_file(tmp_path / "logits.safetensors")
    assert len(got) == 12
    processor = AutoProcessor.from_pretrained(moted_folder)
    assert type(processor) is VideoTextProcessor
    batch = processor(videos=list(frames), text=CLASS_NAMES, descriptions=DESCRIPTIONS)
    for path in (moted_folder, saved_again):
        model = AutoModel.from_pretrained(path)
        assert type(model) is MotedModel
        whole, short = model(**batch), model(**{**batch, "pixel_values": batch["pixel_values"][:, :6]})
        for name, logits in got.items():
            call, stream, _ = name.split()
            expected = (short if call == "short" else whole)[f"{stream}_logits_per_video"]
            assert largest_difference(logits, expected) <= 1e-5, name


OTHER_REMOTE_CODE = (
    WITHOUT_KINETEXT
    + """
import torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor

source, tensors, saved_again, auto_class, *names = sys.argv[1:]
videos = load_file(tensors + "/videos.safetensors")
logits = {}
for step, folder in enumerate((source, saved_again)):
    model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    loaded = (AutoConfig.from_pretrained(folder, trust_remote_code=True), model, processor)
    assert all(type(one).__module__.startswith("transformers_modules.") for one in loaded), loaded
    assert [type(one).__name__ for one in loaded] == [*names, "VideoTextProcessor"], loaded
    batch = processor(videos=list(videos["frames"]), text=["moving left", "moving right", "growing"])
    if auto_class != "AutoModel":
        batch = {"pixel_values": batch["pixel_values"]}
    with torch.no_grad():
        logits[str(step)] = model(**batch, return_dict=False)[0]
    if step == 0:
        model.save_pretrained(saved_again)
        processor.save_pretrained(saved_again)
assert not any(name.split(".")[0] == "kinetext" for name in sys.modules)
save_file({name: value.contiguous() for name, value in logits.items()}, tensors + "/logits.safetensors")
"""
)


@pytest.mark.parametrize(
    ("config_name", "model_name"),
    [
        ("VideoCLIPConfig", "VideoCLIPModel"),
        ("VideoCLIPConfig", "VideoCLIPForVideoClassification"),
        ("XCLIPConfig", "XCLIPForVideoClassification"),
    ],
)
def test_video_clip_and_classifiers_load_as_remote_code_where_kinetext_is_not_installed(
    config_name: str, model_name: str, tmp_path: Path
) -> None:
    import transformers

    import kinetext

    tokenizer = small_tokenizer(CLASS_NAMES)
    if config_name == "XCLIPConfig":
        config: Any = tiny_config(text={"vocab_size": len(tokenizer), "max_position_embeddings": 77})
    else:
        config = tiny_video_clip_config("transformer", vocab_size=len(tokenizer), max_tokens=77)
    model = getattr(kinetext, model_name)(config).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    processor = VideoTextProcessor(tokenizer=tokenizer, num_frames=8, crop_size=32, short_side=36)
    processor.save_pretrained(folder)
    frames = torch.randint(0, 256, (2, 8, 40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"frames": frames}, tmp_path / "videos.safetensors")
    auto_class = "AutoModelForVideoClassification" if model_name.endswith("Classification") else "AutoModel"
    run(OTHER_REMOTE_CODE, tmp_path, folder, tmp_path, tmp_path / "again", auto_class, config_name, model_name)

    batch = processor(videos=list(frames), text=CLASS_NAMES)
    if auto_class != "AutoModel":
        batch = {"pixel_values": batch["pixel_values"]}
    got = load_file(tmp_path / "logits.safetensors")
    for path, logits in zip((folder, tmp_path / "again"), got.values(), strict=True):
        loaded = getattr(transformers, auto_class).from_pretrained(path)
        assert type(loaded) is getattr(kinetext, model_name)
        assert largest_difference(loaded(**batch, return_dict=False)[0], logits) <= 1e-5


@pytest.mark.parametrize("path_of", ["folder", "stock_folder"])
def test_our_class_loads_with_or_without_our_code_in_the_folder(path_of: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoConfig, AutoModel

    from kinetext import XCLIPConfig, XCLIPModel

    path = request.getfixturevalue(path_of)
    assert type(AutoConfig.from_pretrained(path)) is XCLIPConfig
    model = AutoModel.from_pretrained(path)
    assert type(model) is XCLIPModel
    assert type(AutoModel.from_pretrained(path, trust_remote_code=True)) is XCLIPModel
    stock = modeling_x_clip.XCLIPModel.from_pretrained(path)
    assert type(stock) is modeling_x_clip.XCLIPModel
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    assert largest_difference(model(**inputs).logits_per_video, stock(**inputs).logits_per_video) <= 1e-5


def test_auto_model_from_a_config_gives_the_class_of_that_config() -> None:
    from transformers import AutoModel

    from kinetext import XCLIPModel

    ours = tiny_config()
    assert type(AutoModel.from_config(ours)) is XCLIPModel
    fields = {"text_config": ours.text_config.to_dict(), "vision_config": ours.vision_config.to_dict()}
    stock = configuration_x_clip.XCLIPConfig(**fields, projection_dim=32)
    assert type(AutoModel.from_config(stock)) is modeling_x_clip.XCLIPModel


IMPORTS = {
    "kinetext first": "import kinetext",
    "AutoModel first": "from transformers import AutoModel, AutoProcessor, AutoConfig; import kinetext",
    "processing_auto first": "import transformers.models.auto.processing_auto; import kinetext",
    "after AutoModel was used": (
        "from transformers import AutoModel; "
        "assert type(AutoModel.from_pretrained(stock)).__module__.startswith('transformers.'); import kinetext"
    ),
}

LOAD = """
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor
print(json.dumps({
    "config": str(type(AutoConfig.from_pretrained(ours)).__module__),
    "model": str(type(AutoModel.from_pretrained(ours)).__module__),
    "classifier": AutoModelForVideoClassification.from_config(AutoConfig.from_pretrained(ours)).__class__.__module__,
    "stock weights": str(type(AutoModel.from_pretrained(stock)).__module__),
    "processor": str(type(AutoProcessor.from_pretrained(ours)).__module__),
}))
"""


@pytest.mark.parametrize("order", IMPORTS)
def test_auto_classes_return_ours_in_every_order_of_imports(
    order: str, folder: Path, stock_folder: Path, tmp_path: Path
) -> None:
    code = f"import json, sys; ours, stock = sys.argv[1:3]; {IMPORTS[order]}\n{LOAD}"
    homes = json.loads(run(code, tmp_path, folder, stock_folder, python_path=str(REPOSITORY)).splitlines()[-1])
    assert homes == {
        "config": "kinetext.modeling.configuration_xclip",
        "model": "kinetext.modeling.modeling_xclip",
        "classifier": "kinetext.modeling.modeling_xclip",
        "stock weights": "kinetext.modeling.modeling_xclip",
        "processor": "kinetext.processing.processing_video_text",
    }
