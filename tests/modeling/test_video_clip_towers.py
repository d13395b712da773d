"""VideoCLIP on an image tower that is not CLIP's: each kind of ViT against itself, files, initial values, errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import (
    assert_equal_gradients,
    gradients,
    largest_difference,
    scatter_weights,
    tiny_clip,
    tiny_clip_config,
    tiny_texts,
    tiny_video_clip_config,
    tiny_videos,
)
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    DeiTConfig,
    Dinov2Config,
    SiglipVisionConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTMSNConfig,
)

from kinetext import VideoCLIPConfig, VideoCLIPForVideoClassification, VideoCLIPModel
from kinetext.evaluation.cost import measure_cost
from kinetext.modeling.configuration_video_clip import IMAGE_TOWERS

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = torch.tensor([2, 0])
SIZES = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
CONFIGS: dict[str, Any] = {
    "vit": ViTConfig(**SIZES, intermediate_size=60, layer_norm_eps=1e-6),
    "deit": DeiTConfig(**SIZES, intermediate_size=60),
    "vit_msn": ViTMSNConfig(**SIZES, intermediate_size=60),
    "dinov2": Dinov2Config(**SIZES, mlp_ratio=2),
}
POOLINGS = ("mean", "transformer", "one_frame")


def tiny_tower(kind: str = "vit") -> Any:
    torch.manual_seed(0)
    tower = AutoModel.from_config(CONFIGS[kind])
    scatter_weights(tower)
    return tower.eval()


def tiny_model(pooling: str = "mean", kind: str = "vit", **fields: Any) -> VideoCLIPModel:
    """In evaluation mode with scattered weights; the same ones each time for the same arguments."""
    torch.manual_seed(0)
    frames = 1 if pooling == "one_frame" else 8
    heads = {"temporal_num_layers": 2, "temporal_num_attention_heads": 2}
    fields = {"temporal_pooling": pooling, **heads, **fields}
    model = VideoCLIPModel.from_towers(tiny_tower(kind), tiny_clip(), num_frames=frames, **fields)
    scatter_weights(model)
    return model.eval()


def learning(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# The same features


@pytest.mark.parametrize("kind", CONFIGS)
def test_frames_are_read_by_the_class_token_after_the_last_norm(kind: str) -> None:
    tower, videos = tiny_tower(kind), tiny_videos()
    model = VideoCLIPModel.from_towers(tower, tiny_clip()).eval()
    with torch.no_grad():
        tokens = tower(videos.flatten(0, 1)).last_hidden_state[:, 0].unflatten(0, (2, 8))
        expected = model.visual_projection(tokens).mean(dim=1)
    output = model(pixel_values=videos, **tiny_texts())
    assert largest_difference(model.get_video_features(videos).pooler_output, expected) <= 1e-6
    assert largest_difference(output.video_embeds, torch.nn.functional.normalize(expected, dim=-1)) <= 1e-6
    with torch.no_grad():
        texts = tiny_clip().get_text_features(**tiny_texts()).pooler_output
    assert largest_difference(output.text_embeds, torch.nn.functional.normalize(texts, dim=-1)) <= 1e-6


def test_every_kind_is_tested() -> None:
    assert set(CONFIGS) == set(IMAGE_TOWERS)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing_and_any_number_of_frames_is_taken(pooling: str) -> None:
    model, videos, mask = tiny_model(pooling), tiny_videos(), torch.ones(2, 8)
    mask[1, 5:] = 0
    together = model(pixel_values=videos, frame_mask=mask, **tiny_texts()).logits_per_video
    for row, length in enumerate((8, 5)):
        alone = model(pixel_values=videos[row : row + 1, :length], **tiny_texts()).logits_per_video
        assert largest_difference(together[row : row + 1], alone) <= 1e-5
    if pooling != "one_frame":
        model.set_num_frames(12)
        assert model.config.num_frames == 12


@pytest.mark.parametrize("kind", CONFIGS)
def test_other_image_sizes_are_taken_when_asked_for(kind: str) -> None:
    model, videos = tiny_model(kind=kind), tiny_videos(1, 2, size=48)
    output = model(pixel_values=videos, interpolate_pos_encoding=True, **tiny_texts())
    assert output.logits_per_video.isfinite().all()
    with pytest.raises(ValueError, match=r"Input image size \(48\*48\) doesn't match model"):
        model(pixel_values=videos, **tiny_texts())


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_size_of_a_tower_may_be_a_pair(kind: str, tmp_path: Path) -> None:
    config = type(CONFIGS[kind])(**{**CONFIGS[kind].to_dict(), "image_size": (32, 32)})
    model = VideoCLIPModel.from_towers(AutoModel.from_config(config), tiny_clip()).eval()
    model.save_pretrained(tmp_path)
    for one in (model, VideoCLIPModel.from_pretrained(tmp_path)):
        assert one.get_video_features(tiny_videos()).pooler_output.isfinite().all()
        with pytest.raises(ValueError, match=r"Input image size \(48\*48\) doesn't match model \(32\*32\)"):
            one.get_video_features(tiny_videos(size=48))


# Where towers come from


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_are_copied_from_models_and_folders(kind: str, tmp_path: Path) -> None:
    tower, clip = tiny_tower(kind), tiny_clip()
    tower.save_pretrained(tmp_path / "tower")
    clip.save_pretrained(tmp_path / "clip")
    towers: dict[str, torch.Tensor] = {
        f"vision_model.{name}": value
        for name, value in tower.state_dict().items()
        if not re.search(r"pooler|mask_token", name)
    }
    towers |= {name: value for name, value in clip.state_dict().items() if not name.startswith("vis")}
    for sources in ((tower, clip), (tmp_path / "tower", str(tmp_path / "clip"))):
        model = VideoCLIPModel.from_towers(*sources)
        state = model.state_dict()
        assert set(state) - set(towers) == {"visual_projection.weight"} == model.new_parameter_names()
        assert all(torch.equal(state[name], value) for name, value in towers.items())
        assert model.visual_projection.weight.std().item() == pytest.approx(36**-0.5, rel=0.15)
        assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in tower.parameters()}


def test_the_head_of_an_image_classifier_is_left_out(tmp_path: Path) -> None:
    classifier = ViTForImageClassification(ViTConfig(**SIZES, intermediate_size=60, num_labels=7))
    classifier.save_pretrained(tmp_path)
    for source in (tmp_path, classifier):
        model = VideoCLIPModel.from_towers(source, tiny_clip())
        for name, value in classifier.vit.state_dict().items():
            assert torch.equal(model.state_dict()[f"vision_model.{name}"], value), name
        tower: Any = model.config.vision_config
        assert tower.num_labels == 2 and "LABEL_6" not in tower.to_json_string()


def test_the_widest_precision_of_the_towers_is_kept() -> None:
    wide, half = torch.float32, torch.bfloat16
    for vision, text, widest in ((half, half, half), (half, wide, wide), (wide, half, wide)):
        model = VideoCLIPModel.from_towers(tiny_tower().to(vision), tiny_clip().to(text))
        assert {parameter.dtype for parameter in model.parameters()} == {widest}
    classifier = VideoCLIPForVideoClassification.from_towers(tiny_tower().to(half), tiny_clip())
    assert {parameter.dtype for parameter in classifier.parameters()} == {half}


def test_configurations_give_random_weights() -> None:
    torch.manual_seed(0)
    model = VideoCLIPModel.from_towers(CONFIGS["vit"], tiny_clip_config(), temporal_pooling="transformer")
    assert model.vision_model.layers[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (model.config.projection_dim, model.config.temporal_num_attention_heads) == (32, 1)
    again = VideoCLIPModel(model.config)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_an_incomplete_tower_is_refused(tmp_path: Path) -> None:
    tiny_tower().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder.layer.2.extra"] = weights.pop("layernorm.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match=r"missing \['layernorm.weight'\], left over \['.*2.extra'\]"):
        VideoCLIPModel.from_towers(tmp_path, tiny_clip())


def test_what_cannot_be_a_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="^an image tower of type 'siglip_vision_model' cannot take the place of CLIP's"
    ):
        VideoCLIPModel.from_towers(SiglipVisionConfig(), tiny_clip())
    tiny_clip().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^an image tower of type 'clip' .*A whole CLIP goes to from_clip"):
        VideoCLIPModel.from_towers(tmp_path, tiny_clip())
    with pytest.raises(TypeError, match="^vision must be a name, a folder, a configuration or a ViT; got int"):
        VideoCLIPModel.from_towers(3, tiny_clip())
    with pytest.raises(ValueError, match="^VideoCLIPModel reads class texts: name the CLIP"):
        VideoCLIPModel.from_towers(tiny_tower())
    with pytest.raises(Exception, match="temporal_pooling='joint' needs CLIP's image tower, and this one is a 'vit'"):
        VideoCLIPModel.from_towers(tiny_tower(), tiny_clip(), temporal_pooling="joint")


# The configuration


def test_configuration_is_saved_with_its_tower(tmp_path: Path) -> None:
    for kind, tower in CONFIGS.items():
        config = VideoCLIPConfig.from_towers(tower, tiny_clip_config(), vision_config={"layer_norm_eps": 1e-5})
        config.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        for one in (config, loaded):
            vision: Any = one.vision_config
            assert type(vision) is type(tower) and vision.model_type == kind
            assert (vision.hidden_size, vision.num_attention_heads, vision.layer_norm_eps) == (36, 3, 1e-5)
        assert loaded.to_dict() == {**config.to_dict(), "_name_or_path": str(tmp_path)}


def test_unknown_fields_of_a_tower_raise() -> None:
    fields = {"model_type": "vit", "hidden_size": 36, "attention_dropout": 0.1}
    with pytest.raises(TypeError, match="^vision_config got an unknown field `attention_dropout`; did you mean"):
        VideoCLIPConfig(vision_config=fields)
    with pytest.raises(ValueError, match="^an image tower of type 'swin' cannot"):
        VideoCLIPConfig(vision_config={"model_type": "swin"})


def test_cost_is_measured() -> None:
    model = tiny_model()
    cost = measure_cost(model.config, num_tokens=9)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert next(tower for tower in cost.towers if tower.tower == "image tower").macs > 8 * 2 * 17 * 36 * 60 * 2


# Files


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_saved_model_loads_equal(kind: str, pooling: str, tmp_path: Path) -> None:
    model = tiny_model(pooling, kind)
    model.save_pretrained(tmp_path)
    # Not under the older names of ViT, which a trainer that goes on from a checkpoint would not find.
    assert set(load_file(tmp_path / "model.safetensors")) == {name for name, _ in model.named_parameters()}
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    expected = model(**inputs)
    for loaded in (VideoCLIPModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is VideoCLIPModel
        output = loaded(**inputs)
        assert all(torch.equal(output[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("vision_model.embeddings.cls_token", 0.02),
        ("vision_model.embeddings.position_embeddings", 0.02),
        ("vision_model.layers.1.attention.q_proj.weight", 0.02),
        ("vision_model.layernorm.bias", 0),
        ("visual_projection.weight", 36**-0.5),
    ],
)
def test_one_missing_key_is_started_and_no_other_touched(name: str, deviation: float, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = VideoCLIPModel.from_pretrained(tmp_path).state_dict()
    started = loaded.pop(name)
    tolerance = 6 / (2 * started.numel()) ** 0.5
    assert started.square().mean().sqrt().item() == pytest.approx(deviation, rel=tolerance)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.items())


WITHOUT_KINETEXT = """
import importlib.abc, sys

class Unimportable(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname.split(".")[0] == "kinetext":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Unimportable())
import torch, transformers
from safetensors.torch import load_file, save_file

source, auto_class = sys.argv[1:]
inputs = load_file("inputs.safetensors")
logits = {}
for step, folder in enumerate((source, "again")):
    model, report = getattr(transformers, auto_class).from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(model.vision_model).__name__ == "ViTModel" and not any(report.values()), report
    with torch.no_grad():
        logits[str(step)] = model(**inputs, return_dict=False)[0].contiguous()
    model.save_pretrained("again")
assert not any(name.split(".")[0] == "kinetext" for name in sys.modules)
save_file(logits, "logits.safetensors")
"""


@pytest.mark.parametrize("auto_class", ["AutoModel", "AutoModelForVideoClassification"])
def test_it_loads_as_remote_code_where_kinetext_is_not_installed(auto_class: str, tmp_path: Path) -> None:
    inputs = {"pixel_values": tiny_videos()}
    if auto_class == "AutoModel":
        model: Any = tiny_model("transformer")
        inputs |= tiny_texts()
    else:
        model = VideoCLIPForVideoClassification.from_towers(tiny_tower(), num_labels=5).eval()
    model.save_pretrained(tmp_path / "model")
    save_file(inputs, tmp_path / "inputs.safetensors")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    environment |= {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT_KINETEXT, str(tmp_path / "model"), auto_class]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for logits in load_file(tmp_path / "logits.safetensors").values():
        assert largest_difference(model(**inputs, return_dict=False)[0], logits) <= 1e-5
    assert "kinetext" not in json.loads((tmp_path / "again/config.json").read_text())["auto_map"][auto_class]


# What is trained, and how it runs


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradients_reach_what_learns_and_nothing_else(kind: str) -> None:
    model = tiny_model("transformer", kind)
    model(pixel_values=tiny_videos(), labels=LABELS, **tiny_texts()).loss.backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == learning(model)
    positions = {"vision_model.embeddings.position_embeddings", "text_model.embeddings.position_embedding.weight"}
    assert model.position_parameter_names() == positions | {"temporal_transformer.position_embedding.weight"}


def test_a_frozen_tower_leaves_the_projection_learning(tmp_path: Path) -> None:
    model = tiny_model(train_vision=False, train_text=False, train_logit_scale=False)
    assert learning(model) == {"visual_projection.weight"}
    model.save_pretrained(tmp_path)
    assert learning(VideoCLIPModel.from_pretrained(tmp_path)) == {"visual_projection.weight"}
    model.set_trainable(vision=True)
    assert learning(model) == {name for name, _ in model.named_parameters() if name.startswith("vis")}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sdpa_equals_eager_also_when_switched_later(pooling: str) -> None:
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    fused = tiny_model(pooling)
    expected = fused(**inputs).logits_per_video
    eager: Any = VideoCLIPModel._from_config(fused.config, attn_implementation="eager").eval()
    eager.load_state_dict(fused.state_dict())
    switched = tiny_model(pooling)
    switched.set_attn_implementation("eager")
    for model in (eager, switched):
        seen = []
        for module in model.modules():
            if type(module).__name__ in ("ViTAttention", "CLIPAttention"):
                module.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output[1] is not None))
        assert largest_difference(model(**inputs).logits_per_video, expected) <= 1e-5
        assert len(seen) == (6 if pooling == "transformer" else 4) and all(seen)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model = tiny_model("transformer").train()
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **tiny_texts()}
    model(**inputs).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": False})
    calls = []
    for layer in model.vision_model.layers:
        layer.attention.register_forward_hook(lambda *_: calls.append(1))
    model(**inputs).loss.backward()
    assert len(calls) == 4
    assert_equal_gradients(expected, gradients(model))


def test_compiled_training_step_equals_eager() -> None:
    model = tiny_model("transformer").train()
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **tiny_texts()}
    model(**inputs).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss.backward()
    torch._dynamo.reset()
    assert_equal_gradients(expected, gradients(model))


# Without class texts


def test_a_classifier_has_the_same_video_side(tmp_path: Path) -> None:
    names = {0: "run", 1: "jump", 2: "sit"}
    for clip, width in ((None, 512), (tiny_clip(), 32), (tiny_clip_config(), 32)):
        model = VideoCLIPForVideoClassification.from_towers(tiny_tower(), clip, num_frames=4, id2label=names).eval()
        assert model.visual_projection.weight.shape == (width, 36)
        assert model.config.num_labels == 3 and not hasattr(model, "text_model")
        assert model.new_parameter_names() == {"visual_projection.weight", "classifier.weight", "classifier.bias"}
        model.save_pretrained(tmp_path)
        loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
        assert type(loaded) is VideoCLIPForVideoClassification
        assert torch.equal(loaded(tiny_videos()).logits, model(tiny_videos()).logits)
    model.load_state_dict({n: v for n, v in tiny_model().state_dict().items() if n.startswith("vis")}, strict=False)
    expected = model.classifier(tiny_model().get_video_features(tiny_videos()).pooler_output)
    assert largest_difference(model(tiny_videos(), labels=LABELS).logits, expected) <= 1e-6


def test_clips_own_tower_stays_as_it_was() -> None:
    config: Any = tiny_video_clip_config().vision_config
    assert config.model_type == "clip_vision_model"
    assert VideoCLIPModel(tiny_video_clip_config()).new_parameter_names() == set()
