"""Conversion of ViFi-CLIP and Text4Vis checkpoints: against these models written out in plain PyTorch, and failures.

The models below have the modules, and so the keys, of the published files (FACTS 5.1 and 5.2).
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import largest_difference, run_cli, scatter_weights, tiny_clip_config, tiny_texts, tiny_videos
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from kinetext import VideoCLIPConfig, VideoCLIPModel, VideoTextProcessor
from kinetext.conversion.checkpoints import read_checkpoint
from kinetext.conversion.convert import convert_checkpoint
from kinetext.data.small_tokenizer import small_tokenizer

CONTEXT = 16  # tokens of a text


class QuickGELU(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * torch.sigmoid(1.702 * values)


class Block(nn.Module):
    """Sequence first, as in OpenAI's code."""

    def __init__(self, width: int, hidden: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        layers = [("c_fc", nn.Linear(width, hidden)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(hidden, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        normed = self.ln_1(states)
        states = states + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return states + self.mlp(self.ln_2(states))


class Transformer(nn.Module):
    def __init__(self, layers: int, *sizes: Any) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(*sizes) for _ in range(layers)))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            states = block(states, mask)
        return states


def sizes_of(tower: Any) -> tuple[int, int, int, int]:
    return tower.num_hidden_layers, tower.hidden_size, tower.intermediate_size, tower.num_attention_heads


class ImageEncoder(nn.Module):
    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        tower: Any = config.vision_config
        width, patch = tower.hidden_size, tower.patch_size
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((tower.image_size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(*sizes_of(tower))
        self.proj = nn.Parameter(torch.randn(width, config.projection_dim) / 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(images), 1, -1), patches], dim=1)
        states = self.ln_pre(tokens + self.positional_embedding).transpose(0, 1)
        return self.ln_post(self.transformer(states)[0]) @ self.proj


class TextEncoder(nn.Module):
    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        tower: Any = config.text_config
        self.transformer = Transformer(*sizes_of(tower))
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, tower.hidden_size))
        self.ln_final = nn.LayerNorm(tower.hidden_size)
        self.text_projection = nn.Parameter(torch.randn(tower.hidden_size, config.projection_dim) / 11)

    def forward(self, embedded: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        causal = torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1)
        states = self.transformer((embedded + self.positional_embedding).transpose(0, 1), causal).transpose(0, 1)
        return self.ln_final(states)[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection


class ViFiCLIP(nn.Module):
    """Frames averaged before they are normalised; the class texts are embedded once."""

    def __init__(self, clip: CLIPModel, ids: torch.Tensor) -> None:
        super().__init__()
        self.ids = ids
        self.prompt_learner = nn.Module()
        embedded = clip.text_model.embeddings.token_embedding(ids).detach()
        self.prompt_learner.register_buffer("complete_text_embeddings", embedded)
        self.image_encoder, self.text_encoder = ImageEncoder(clip.config), TextEncoder(clip.config)
        self.logit_scale = nn.Parameter(torch.tensor(3.3))

    def forward(self, videos: torch.Tensor) -> torch.Tensor:
        frames = self.image_encoder(videos.flatten(0, 1)).unflatten(0, videos.shape[:2])
        texts = self.text_encoder(self.prompt_learner.complete_text_embeddings, self.ids)
        return cosine_logits(self.logit_scale, frames.mean(dim=1), texts)


class Header(nn.Module):
    """Text4Vis's transformer over frames, or none: then it has no tensors."""

    def __init__(self, width: int, heads: int, layers: int | None) -> None:
        super().__init__()
        if layers:
            self.frame_position_embeddings = nn.Embedding(77, width)
            self.transformer = Transformer(layers, width, 4 * width, heads, 1e-12)
        self.layers = layers

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        if self.layers:
            states = frames + self.frame_position_embeddings(torch.arange(frames.shape[1]))
            frames = frames + self.transformer(states.transpose(0, 1)).transpose(0, 1)
        return frames.mean(dim=1)


class Text4Vis(nn.Module):
    def __init__(self, clip: CLIPModel, layers: int | None) -> None:
        super().__init__()
        self.visual = ImageEncoder(clip.config)
        self.fusion_model = Header(clip.config.projection_dim, clip.config.text_config.hidden_size // 64, layers)
        self.logit_scale = nn.Parameter(torch.tensor(4.1))

    def forward(self, videos: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        frames = self.visual(videos.flatten(0, 1)).unflatten(0, videos.shape[:2])
        return cosine_logits(self.logit_scale, self.fusion_model(frames), texts)


def cosine_logits(logit_scale: torch.Tensor, videos: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    return logit_scale.exp() * functional.normalize(videos, dim=-1) @ functional.normalize(texts, dim=-1).T


# Checkpoints


@pytest.fixture
def clip() -> CLIPModel:
    """A CLIP whose text is two heads of 64 wide, which is what Text4Vis takes its header's heads from."""
    config = tiny_clip_config().to_dict()
    text = {**config["text_config"], "hidden_size": 128, "num_attention_heads": 2, "vocab_size": 600}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=config["vision_config"], projection_dim=32))
    scatter_weights(model)
    return model.eval()


@pytest.fixture
def clip_folder(clip: CLIPModel, tmp_path: Path) -> Path:
    clip.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def texts() -> dict[str, torch.Tensor]:
    """Three class texts, filled up to the longest there may be."""
    return {
        name: functional.pad(tensor, (0, CONTEXT - tensor.shape[1]), value=1 if name == "input_ids" else 0)
        for name, tensor in tiny_texts().items()
    }


def vifi(clip: CLIPModel) -> ViFiCLIP:
    torch.manual_seed(1)
    model = ViFiCLIP(clip, texts()["input_ids"])
    scatter_weights(model)
    return model


def text4vis(clip: CLIPModel, layers: int | None = 3) -> Text4Vis:
    torch.manual_seed(1)
    model = Text4Vis(clip, layers)
    scatter_weights(model)
    return model


def save_vifi(path: Path, state: dict[str, torch.Tensor], **others: Any) -> Path:
    """As its `torch.save` does: from DistributedDataParallel."""
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 9, **others}, path)
    return path


def save_text4vis(path: Path, state: dict[str, torch.Tensor], prefix: str = "module.") -> Path:
    """As its `torch.save` does, with the state of its optimiser."""
    weights = [nn.Parameter(torch.zeros(2))]
    weights[0].grad = torch.ones(2)
    optimizer = torch.optim.AdamW(weights)
    optimizer.step()
    state = {prefix + key: value for key, value in state.items()}
    torch.save({"epoch": 30, "model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}, path)
    return path


def converted_logits(folder: Path, videos: torch.Tensor) -> torch.Tensor:
    model = VideoCLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(pixel_values=videos, **texts()).logits_per_video


# The same logits


@pytest.mark.parametrize("num_frames", [1, 4, 8])
def test_vifi_clip_gives_its_own_logits(clip: CLIPModel, clip_folder: Path, tmp_path: Path, num_frames: int) -> None:
    original, videos = vifi(clip), tiny_videos(2, num_frames)
    path = save_vifi(tmp_path / "k400_vifi.pth", original.state_dict())
    done = convert_checkpoint(path, tmp_path / "out", clip=clip_folder)
    with torch.no_grad():
        expected = original(videos)
    assert expected.std() > 0.1
    assert largest_difference(converted_logits(tmp_path / "out", videos), expected) <= 1e-5
    assert done.project == "ViFi-CLIP"


@pytest.mark.parametrize("layers", [3, None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_text4vis_gives_its_own_logits(
    clip: CLIPModel, clip_folder: Path, tmp_path: Path, layers: int | None, prefix: str
) -> None:
    original = text4vis(clip, layers)
    path = save_text4vis(tmp_path / "model_best.pt", original.state_dict(), prefix)
    done = convert_checkpoint(path, tmp_path / "out", clip=clip_folder)
    config = VideoCLIPConfig.from_pretrained(tmp_path / "out")
    for num_frames in (1, 5, 8):
        videos = tiny_videos(2, num_frames)
        with torch.no_grad():
            expected = original(videos, clip.get_text_features(**texts()).pooler_output)
        assert expected.std() > 0.1
        assert largest_difference(converted_logits(tmp_path / "out", videos), expected) <= 1e-5
    assert done.project == "Text4Vis"
    assert config.temporal_pooling == ("transformer" if layers else "mean") and not config.train_text
    assert not layers or (config.temporal_num_layers, config.temporal_num_attention_heads) == (3, 2)


def test_layer_norms_of_text4vis_have_its_epsilon(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    """Frame features so small that CLIP's 1e-5 would be most of their variance."""
    original, videos = text4vis(clip), tiny_videos()
    with torch.no_grad():
        original.visual.proj.mul_(1e-3)
        original.fusion_model.frame_position_embeddings.weight.mul_(1e-3)
        for block in original.fusion_model.transformer.resblocks:
            for module in (block.attn.out_proj, block.mlp.c_proj):
                module.weight.mul_(1e-3)
                module.bias.mul_(1e-3)
        expected = original(videos, clip.get_text_features(**texts()).pooler_output)
    convert_checkpoint(save_text4vis(tmp_path / "a.pt", original.state_dict()), tmp_path / "out", clip=clip_folder)
    model: Any = VideoCLIPModel.from_pretrained(tmp_path / "out")
    norms = [m for m in model.temporal_transformer.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 6 and {norm.eps for norm in norms} == {1e-12}
    assert largest_difference(converted_logits(tmp_path / "out", videos), expected) <= 1e-5
    for norm in norms:
        norm.eps = 1e-5
    assert largest_difference(model.eval()(pixel_values=videos, **texts()).logits_per_video, expected) > 1e-2


# Contract


def test_processors_have_the_published_contract(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    small_tokenizer(["moving left"]).save_pretrained(clip_folder)
    convert_checkpoint(save_vifi(tmp_path / "a.pth", vifi(clip).state_dict()), tmp_path / "vifi", clip=clip_folder)
    convert_checkpoint(
        save_text4vis(tmp_path / "b.pt", text4vis(clip).state_dict()), tmp_path / "vis", clip=clip_folder
    )
    vifi_processor, vis_processor = (VideoTextProcessor.from_pretrained(tmp_path / name) for name in ("vifi", "vis"))
    common = {"motion_frame_ratio": 1, "sampling": "segments", "stride": 1, "crop_size": 32}
    assert vifi_processor.contract == {
        **common,
        "num_frames": 16,
        "short_side": 37,
        "interpolation": "bilinear",
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "template": "a photo of a {}.",
    }
    assert vis_processor.contract == {
        **common,
        "num_frames": 8,
        "short_side": 32,  # 256 at 224 pixels only
        "interpolation": "bicubic",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "template": "a video of a person {}.",
    }


def test_frames_are_the_users_the_files_or_the_published_ones(
    clip: CLIPModel, clip_folder: Path, tmp_path: Path
) -> None:
    settings = {"DATA": {"NUM_FRAMES": 32}, "TRAINER": {"ViFi_CLIP": {"USE": "text"}}}
    said = save_vifi(tmp_path / "said.pth", vifi(clip).state_dict(), config=settings)
    silent = save_vifi(tmp_path / "silent.pth", vifi(clip).state_dict())
    frames, notes = [], []
    for number, (path, given) in enumerate([(said, None), (said, 4), (silent, 4), (silent, None)]):
        done = convert_checkpoint(path, tmp_path / str(number), clip=clip_folder, num_frames=given)
        frames.append(done.num_frames)
        notes.append([note for note in done.notes if "how many frames" in note])
        assert VideoCLIPConfig.from_pretrained(tmp_path / str(number)).num_frames == done.num_frames
    assert frames == [32, 4, 4, 16]
    assert [len(of) for of in notes] == [0, 0, 0, 1]
    config = VideoCLIPConfig.from_pretrained(tmp_path / "0")
    assert (config.train_vision, config.train_text, config.train_logit_scale) == (False, True, False)
    config = VideoCLIPConfig.from_pretrained(tmp_path / "3")
    assert (config.train_vision, config.train_text, config.train_logit_scale) == (True, True, True)


def test_a_configuration_can_be_given(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    config = VideoCLIPConfig.from_clip_config(clip.config, num_frames=5, train_logit_scale=False)
    path = save_vifi(tmp_path / "a.pth", vifi(clip).state_dict())
    assert convert_checkpoint(path, tmp_path / "out", clip=clip_folder, config=config).num_frames == 5
    assert not VideoCLIPConfig.from_pretrained(tmp_path / "out").train_logit_scale


def test_half_precision_of_the_file_is_not_that_of_the_text_tower(
    clip: CLIPModel, clip_folder: Path, tmp_path: Path
) -> None:
    state = {key: value.half() for key, value in vifi(clip).state_dict().items()}
    convert_checkpoint(save_vifi(tmp_path / "a.pth", state), tmp_path / "out", clip=clip_folder)
    model = VideoCLIPModel.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    table = clip.text_model.embeddings.token_embedding.weight
    assert torch.equal(model.text_model.embeddings.token_embedding.weight, table)


# Failures


def failure(path: Path, out: Path, error: type[Exception] = ValueError, **options: Any) -> str:
    """The message of a conversion that must fail, and must leave neither a folder nor scratch files behind."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(error) as caught:
        convert_checkpoint(path, out, **options)
    assert sorted(out.parent.iterdir()) == before
    return str(caught.value)


SAVES: dict[str, tuple[Callable[[CLIPModel], nn.Module], Callable[..., Path]]] = {
    "ViFi-CLIP": (vifi, save_vifi),
    "Text4Vis": (text4vis, save_text4vis),
}


@pytest.mark.parametrize("project", SAVES)
def test_each_key_is_missed_and_each_wrong_shape_named(
    project: str, clip: CLIPModel, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, save = SAVES[project]
    path = save(tmp_path / "file.pth", make(clip).state_dict())
    whole, unnoticed = read_checkpoint(path), []  # once, as the CLIP: they would be read 150 times
    monkeypatch.setattr("kinetext.conversion.video_clip.load_clip", lambda _: clip)

    def message_of(state: dict[str, torch.Tensor]) -> str:
        monkeypatch.setattr("kinetext.conversion.convert.read_checkpoint", lambda _: replace(whole, state=state))
        return failure(path, tmp_path / "out", clip=clip_folder)

    needed = [key for key in whole.state if not key.startswith("prompt_learner.")]
    for key in needed:
        message = message_of({name: tensor for name, tensor in whole.state.items() if name != key})
        if f"{path} does not fit {project}; nothing was written.\nmissing (1): {key} (for" not in message:
            unnoticed.append(f"missing {key}")
        larger = functional.pad(torch.atleast_1d(whole.state[key]), (0, 1))
        message = message_of({**whole.state, key: larger})
        if not re.search(rf"does not fit {project}; nothing was written.\nother shapes \([13]\): \S+ \(", message):
            unnoticed.append(f"shape of {key}")
    assert len(needed) > 70 and unnoticed == []


@pytest.mark.parametrize("project", SAVES)
def test_left_over_keys_and_other_shapes_are_named(
    project: str, clip: CLIPModel, clip_folder: Path, tmp_path: Path
) -> None:
    make, save = SAVES[project]
    state, path = make(clip).state_dict(), tmp_path / "file.pth"
    message = failure(
        save(path, {**state, "extra": torch.zeros(1), "prompt.b": torch.zeros(1)}), tmp_path / "out", clip=clip_folder
    )
    assert message.endswith("does not fit " + project + "; nothing was written.\nleft over (2): extra, prompt.b")
    vision = "image_encoder" if project == "ViFi-CLIP" else "visual"
    state |= {f"{vision}.proj": torch.zeros(47, 32), "logit_scale": torch.zeros(2)}
    message = failure(save(path, state), tmp_path / "out", clip=clip_folder)
    assert message.endswith(
        "\nother shapes (2): logit_scale (2,) instead of (), visual_projection.weight (32, 47) instead of (32, 48)"
    )


def test_a_clip_is_needed_and_has_to_be_the_right_one(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    path = save_vifi(tmp_path / "a.pth", vifi(clip).state_dict())
    way_out = "name the CLIP that it was trained from (--clip), e.g. openai/clip-vit-base-patch16."
    assert failure(path, tmp_path / "out") == f"{path} is of ViFi-CLIP, which saves no token embeddings: {way_out}"
    other_path = save_text4vis(tmp_path / "b.pt", text4vis(clip).state_dict())
    assert failure(other_path, tmp_path / "out") == f"{other_path} is of Text4Vis, which saves no text tower: {way_out}"

    with torch.no_grad():
        clip.text_model.embeddings.token_embedding.weight.add_(0.1)
    clip.save_pretrained(tmp_path / "other")
    message = failure(path, tmp_path / "out", clip=tmp_path / "other")
    assert message == (
        f"the class texts in {path} were embedded by another CLIP than {tmp_path / 'other'}; name the one that it was "
        "trained from."
    )
    deeper = CLIPConfig(
        **{**clip.config.to_dict(), "vision_config": {**clip.config.vision_config.to_dict(), "num_hidden_layers": 4}}
    )
    CLIPModel(deeper).save_pretrained(tmp_path / "deeper")
    message = failure(path, tmp_path / "out", clip=tmp_path / "deeper")
    assert "missing (12): image_encoder.transformer.resblocks.3.attn.in_proj_bias (for" in message


def test_class_texts_of_another_shape_are_named(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    state = vifi(clip).state_dict()
    key = "prompt_learner.complete_text_embeddings"
    path = save_vifi(tmp_path / "a.pth", {**state, key: state[key][:, 1:]})
    message = failure(path, tmp_path / "out", clip=clip_folder)
    assert message.endswith(f"\nother shapes (1): {key} (3, 15, 128) instead of (3, 16, 128)")
    message = failure(save_vifi(path, {**state, key: state[key][:0]}), tmp_path / "out", clip=clip_folder)
    assert message == f"{path} has tensors that can be no weights (1): module.{key} has no values."
    del state[key]
    assert convert_checkpoint(save_vifi(path, state), tmp_path / "out", clip=clip_folder).project == "ViFi-CLIP"


@pytest.mark.parametrize("project", SAVES)
def test_options_that_make_no_model_are_refused(
    project: str, clip: CLIPModel, clip_folder: Path, tmp_path: Path
) -> None:
    make, save = SAVES[project]
    path = save(tmp_path / "a.pth", make(clip).state_dict())
    for num_frames in (0, -1):
        message = failure(path, tmp_path / "out", clip=clip_folder, num_frames=num_frames)
        assert message == f"num_frames={num_frames} must be at least 1."
    message = failure(path, tmp_path / "out", TypeError, clip=clip_folder, config="x")
    assert message == "config must be a VideoCLIPConfig; got str."


@pytest.mark.parametrize(
    "keys",
    [
        ["prompt_learner.ctx", "prompt_learner.token_prefix", "prompt_learner.token_suffix"],
        ["image_encoder.VPT"],
        ["text_encoder.transformer.resblocks.1.VPT_shallow"],
    ],
)
def test_learned_prompts_are_refused(keys: list[str], clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    state = {**vifi(clip).state_dict(), **{key: torch.zeros(10, 128) for key in keys}}
    path = save_vifi(tmp_path / "a.pth", state)
    message = failure(path, tmp_path / "out", clip=clip_folder)
    assert message.startswith(f"{path} has learned prompts ({', '.join(keys)}): it was trained with PROMPT_MODEL")


class Harmful:
    """What would run when a file is read without care."""

    was_run = False

    def __reduce__(self) -> Any:
        return setattr, (Harmful, "was_run", True)


def test_code_in_a_file_is_not_run(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    torch.save({"model_state_dict": text4vis(clip).state_dict(), "optimizer_state_dict": Harmful()}, tmp_path / "a.pt")
    message = failure(tmp_path / "a.pt", tmp_path / "out", clip=clip_folder)
    assert "which could run code when read, so it was not read" in message
    assert not Harmful.was_run


def test_a_file_of_no_project_is_said_to_be_none(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"backbone.a": torch.zeros(1), "head.b": torch.zeros(1)}}, path)
    assert failure(path, tmp_path / "out", clip=clip_folder) == (
        f"{path} is no checkpoint of X-CLIP, ViFi-CLIP or Text4Vis: its 2 keys start like none of theirs "
        "(backbone.a, head.b, ...)."
    )


def test_options_that_an_xclip_does_not_need_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"mit.positional_embedding": torch.zeros(1)}}, path)
    message = failure(path, tmp_path / "out", clip=clip_folder, num_frames=8)
    assert message == (
        f"{path} is of X-CLIP and has its own text tower and number of frames; leave --clip and --num-frames out."
    )
    message = failure(clip_folder, tmp_path / "out", clip=clip_folder)
    assert message == f"{clip_folder} has its own text tower and number of frames; leave --clip out."


def test_command_line_converts_both(clip: CLIPModel, clip_folder: Path, tmp_path: Path) -> None:
    small_tokenizer(["moving left"]).save_pretrained(clip_folder)
    paths = [
        save_vifi(tmp_path / "a.pth", vifi(clip).state_dict()),
        save_text4vis(tmp_path / "b.pt", text4vis(clip).state_dict()),
    ]
    for path, options in itertools.product(paths, ((), ("--num-frames", 12))):
        out = tmp_path / f"{path.stem}{len(options)}"
        done = run_cli("convert", path, out, "--clip", clip_folder, *options)
        assert done.exit_code == 0, done.output
        assert "model and processor saved in" in done.output
        assert f"converted from {'ViFi-CLIP' if path.stem == 'a' else 'Text4Vis'}" in " ".join(done.output.split())
        assert VideoTextProcessor.from_pretrained(out).num_frames == (12 if options else 16 if path.stem == "a" else 8)
    done = run_cli("convert", paths[0], tmp_path / "none")
    assert done.exit_code == 1 and "--clip" in done.output
