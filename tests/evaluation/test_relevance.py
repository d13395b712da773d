"""Relevance maps: equal to the published rule computed another way, meaningful where the answer is known, no traces."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import render_clip
from testing_utils import largest_difference, run_cli, tiny_model, tiny_moted
from torch import nn
from transformers import CLIPConfig, CLIPModel

from kinetext import MotedModel, VideoTextProcessor, XCLIPModel, load_video
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.relevance import Explanation, StreamRelevance, explain_clip, join_pieces

TEXT = "pushing things off the table"
DESCRIPTIONS = ["A steady push, then a fall.", "Direction of motion; speed", "slow and low"]
FRAMES = 4
PATCH = 16


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return small_tokenizer([*DESCRIPTIONS, "pushing the table", "a video of bright"])


@pytest.fixture(scope="module")
def processor(tokenizer: Any) -> VideoTextProcessor:
    return VideoTextProcessor(tokenizer, num_frames=FRAMES, crop_size=48, template="a video of {}")


@pytest.fixture(scope="module")
def motion_processor(tokenizer: Any) -> VideoTextProcessor:
    return VideoTextProcessor(tokenizer, num_frames=FRAMES, motion_frame_ratio=2, crop_size=48)


def xclip(processor: VideoTextProcessor, *, layers: int = 2, **fields: Any) -> XCLIPModel:
    text = {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77, "num_hidden_layers": layers}
    vision = {"image_size": 48, "patch_size": PATCH, "num_hidden_layers": layers}
    return tiny_model(num_frames=FRAMES, text=text, vision=vision, **fields)


def moted(processor: VideoTextProcessor, **fields: Any) -> MotedModel:
    """A tiny MoTED whose 4 x 9 motion keys are merged to 20."""
    fields = {"motion_max_key_tokens": 20, "vision_config": {"image_size": 48}, **fields}
    return tiny_moted(num_frames=FRAMES, vocab_size=len(processor.tokenizer), max_tokens=77, **fields)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 20)


def shares(stream: StreamRelevance) -> list[float]:
    return [share for text in stream.texts for _, share in text.words]


def assert_equal(left: Explanation, right: Explanation, *, tolerance: float = 0.0) -> None:
    assert [stream.name for stream in left.streams] == [stream.name for stream in right.streams]
    for one, other in zip(left.streams, right.streams, strict=True):
        assert largest_difference(one.patches, other.patches) <= tolerance * float(one.patches.max())
        assert shares(one) == pytest.approx(shares(other), abs=max(tolerance, 1e-12))
        assert [[word for word, _ in text.words] for text in one.texts] == [
            [word for word, _ in text.words] for text in other.texts
        ]


# ------------------------------------------------------------------------------------------ the rule, another way


def rule(logit: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """R (N,Q,K) of rule 5 and 6 from R = I, head by head; the part of the identity is left out."""
    (gradient,) = torch.autograd.grad(logit, probabilities, retain_graph=True)
    heads = probabilities.shape[1]
    return sum((gradient[:, head] * probabilities[:, head]).relu() for head in range(heads)).detach() / heads


@pytest.mark.parametrize("layers", [1, 3])
def test_xclip_relevance_is_the_rule_on_the_maps_the_model_returns(
    layers: int, clip: Path, processor: VideoTextProcessor
) -> None:
    model = xclip(processor, layers=layers)
    (stream,) = explain_clip(model, processor, clip, TEXT).streams
    model.set_attn_implementation("eager")
    outputs = model(**processor(videos=clip, text=[TEXT]), output_attentions=True)
    logit = outputs.logits_per_video[0, 0]
    of_image = rule(logit, outputs.vision_model_output.attentions[-1])  # (T, 1+9+1, 1+9+1)
    assert of_image.shape == (FRAMES, 11, 11)
    assert largest_difference(stream.patches, of_image[:, 0, 1:10].view(FRAMES, 3, 3)) < 1e-5 * float(of_image.max())
    of_text = rule(logit, outputs.text_model_output.attentions[-1])[0, -1, 1:-1]  # end row, without start and end
    assert (stream.name, stream.texts[0].text) == ("image", TEXT)
    words = [word for word, _ in stream.texts[0].words]
    assert words == ["a", "video", "of", "pushing", "things", "off", "the", "table"]
    pieces = processor.tokenizer.convert_ids_to_tokens(processor(text=[TEXT])["input_ids"][0, 1:-1])
    assert len(pieces) > len(words)
    ends = [index for index, piece in enumerate(pieces) if piece.endswith("</w>")]
    expected = [
        float(of_text[first + 1 : last + 1].sum() / of_text.sum())
        for first, last in zip([-1, *ends[:-1]], ends, strict=True)
    ]
    assert shares(stream) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_keys", [20, 36], ids=["merged", "unmerged"])
def test_motion_relevance_is_the_rule_with_merged_keys_shared_by_their_tokens(
    max_keys: int, clip: Path, motion_processor: VideoTextProcessor
) -> None:
    model = moted(motion_processor, motion_max_key_tokens=max_keys)
    image, motion = explain_clip(model, motion_processor, clip, TEXT, descriptions=DESCRIPTIONS).streams
    kept = {}
    attentions = {
        "image": model.vision_model.encoder.layers[-1].self_attn,
        "motion": model.motion_encoder.blocks[-1].local_motion,
        "text": model.text_model.encoder.layers[-1].self_attn,
    }
    for name, attention in attentions.items():
        attention.register_forward_hook(lambda _m, _a, output, name=name: kept.setdefault(name, []).append(output))
    model.requires_grad_(True)
    model.set_attn_implementation("eager")
    inputs = motion_processor(videos=clip, text=[TEXT], descriptions=[DESCRIPTIONS])
    with model.gradients_through_towers():
        outputs = model(**inputs)
    video_logit, motion_logit = outputs.video_logits_per_video[0, 0], outputs.motion_logits_per_video[0, 0]

    of_image = rule(video_logit, kept["image"][0][1])
    assert largest_difference(image.patches, of_image[:, 0, 1:].view(FRAMES, 3, 3)) < 1e-5 * float(of_image.max())
    _, probabilities, merged_into = kept["motion"][0]
    places = list(range(36)) if merged_into is None else merged_into[0].tolist()
    assert (merged_into is None) == (max_keys == 36)
    of_keys = rule(motion_logit, probabilities)[0].mean(dim=0)  # (M,)
    of_tokens = torch.stack([of_keys[place] / places.count(place) for place in places])
    assert largest_difference(motion.patches.flatten(), of_tokens) < 1e-5 * float(of_tokens.max())
    assert float(motion.patches.sum()) == pytest.approx(float(of_keys.sum()), rel=1e-5)

    names, descriptions = kept["text"]
    end = int(inputs["attention_mask"].sum()) - 1
    row = rule(video_logit, names[1])[0, end, 1:end]
    word_sums = join_pieces(
        motion_processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0, 1:end]), (row / row.sum()).tolist()
    )
    assert shares(image) == pytest.approx([share for _, share in word_sums], abs=1e-5)
    of_descriptions = rule(motion_logit, descriptions[1])
    assert [text.text for text in motion.texts] == DESCRIPTIONS
    ends = (inputs["description_attention_mask"][0].sum(dim=1) - 1).tolist()
    total = sum(of_descriptions[index, end, 1:end].sum() for index, end in enumerate(ends))
    for index, text in enumerate(motion.texts):
        ids = inputs["description_input_ids"][0, index]
        end = int(inputs["description_attention_mask"][0, index].sum()) - 1
        row = of_descriptions[index, end, 1:end]
        word_sums = join_pieces(motion_processor.tokenizer.convert_ids_to_tokens(ids[1:end]), (row / total).tolist())
        assert [share for _, share in text.words] == pytest.approx([share for _, share in word_sums], abs=1e-5)


# ---------------------------------------------------------------------------------------- where the answer is known


def deciding_model(processor: VideoTextProcessor, deciding_id: int) -> XCLIPModel:
    """An X-CLIP in which one thing matters per tower: how much of channel 0 the last attention brings together.

    Channel 0 of a patch token is its brightness, of a text token whether it is `deciding_id`. Values and outputs pass
    channel 0 only. Video (a, b, 0, ...) and text (c, 0, d, ...) have a cosine that grows with a and with c.
    """
    model = xclip(processor, layers=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        vision, text = model.vision_model, model.text_model
        vision.embeddings.patch_embedding.weight[0] = 1 / (3 * PATCH**2)
        vision.embeddings.position_embedding.weight[:, 1] = 1.0  # another channel, or the LayerNorm would divide by 0
        text.embeddings.token_embedding.weight[:, 1] = 1.0
        text.embeddings.token_embedding.weight[deciding_id, 0] = 1.0
        for tower in (vision, text):
            attention = tower.encoder.layers[0].self_attn
            attention.v_proj.weight[0, 0] = attention.out_proj.weight[0, 0] = 1.0
        model.visual_projection.weight[0, 0] = model.visual_projection.weight[1, 1] = 1.0
        model.text_projection.weight[0, 0] = model.text_projection.weight[2, 1] = 1.0
    return model


def test_the_patch_and_the_word_that_decide_are_the_most_relevant(processor: VideoTextProcessor) -> None:
    (deciding_id,) = processor.tokenizer.encode("speed", add_special_tokens=False)
    model = deciding_model(processor, deciding_id)
    video = torch.zeros(FRAMES, 48, 48, 3, dtype=torch.uint8)
    bright = [(0, 2), (1, 1), (2, 0), (0, 0)]  # row and column, frame by frame
    for frame, (row, column) in enumerate(bright):
        video[frame, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 255
    exact = VideoTextProcessor(
        processor.tokenizer, FRAMES, crop_size=48, short_side=48, image_mean=(0, 0, 0), image_std=(1, 1, 1)
    )  # black is 0
    explanation = explain_clip(model, exact, video, "speed of motion")
    (stream,) = explanation.streams
    for frame, (row, column) in enumerate(bright):
        assert int(stream.patches[frame].argmax()) == row * 3 + column
        assert float(stream.patches[frame, row, column]) > 0.9 * float(stream.patches[frame].sum())
    ((_, of_speed), *others) = stream.texts[0].words
    assert of_speed > 0.9 and len(others) == 2
    assert torch.equal(explanation.frames.frames, video)


# ------------------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("kind", ["xclip", "moted"])
def test_relevance_is_never_negative_and_words_sum_to_one(
    kind: str, clip: Path, processor: VideoTextProcessor, motion_processor: VideoTextProcessor
) -> None:
    if kind == "xclip":
        explanation = explain_clip(xclip(processor), processor, clip, TEXT)
    else:
        explanation = explain_clip(moted(motion_processor), motion_processor, clip, TEXT, descriptions=DESCRIPTIONS)
    assert [stream.name for stream in explanation.streams] == ["image", "motion"][: 1 + (kind == "moted")]
    for stream in explanation.streams:
        assert stream.patches.shape == (FRAMES, 3, 3) and stream.patches.dtype == torch.float32
        assert not stream.patches.requires_grad
        assert float(stream.patches.min()) >= 0 and float(stream.patches.max()) > 0
        shares = [share for text in stream.texts for _, share in text.words]
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1, abs=1e-6)


def test_frames_are_the_squares_that_the_image_tower_saw(clip: Path, motion_processor: VideoTextProcessor) -> None:
    frames = explain_clip(moted(motion_processor), motion_processor, clip, TEXT).frames
    assert frames.indices == [2, 7, 12, 17] and frames.timestamps.tolist() == [2 / 25, 7 / 25, 12 / 25, 17 / 25]
    unscaled = VideoTextProcessor(num_frames=FRAMES, crop_size=48, image_mean=(0, 0, 0), image_std=(1 / 255,) * 3)
    expected = unscaled(videos=load_video(clip).frames[frames.indices])["pixel_values"][0].permute(0, 2, 3, 1)
    assert torch.equal(frames.frames.float(), expected.round())


def test_an_explanation_is_named_after_the_file(clip: Path, processor: VideoTextProcessor) -> None:
    model = xclip(processor)
    assert explain_clip(model, processor, clip, TEXT).name == str(clip)
    assert explain_clip(model, processor, clip.read_bytes(), TEXT).name == "bytes"


def state_of(model: nn.Module) -> list[Any]:
    return [
        [(name, module.training) for name, module in model.named_modules()],
        [(name, parameter.requires_grad, parameter.grad is None) for name, parameter in model.named_parameters()],
        [model.config._attn_implementation],
        [getattr(model.config, name)._attn_implementation for name in model.config.sub_configs],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        getattr(model, "_towers_record_gradients", None),
    ]


@pytest.mark.parametrize("fails", [False, True], ids=["works", "fails"])
@pytest.mark.parametrize("kind", ["xclip", "moted"])
def test_the_model_is_left_as_it_was(
    kind: str,
    fails: bool,
    clip: Path,
    processor: VideoTextProcessor,
    motion_processor: VideoTextProcessor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = xclip(processor) if kind == "xclip" else moted(motion_processor)
    used = processor if kind == "xclip" else motion_processor
    model.train()
    model.vision_model.encoder.layers[0].eval()
    model.visual_projection.requires_grad_(False)
    model.logit_scale.grad = torch.tensor(3.0)
    before, weights = state_of(model), deepcopy(model.state_dict())
    if fails:
        monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            explain_clip(model, used, clip, TEXT)
    else:
        explain_clip(model, used, clip, TEXT)
    assert state_of(model) == before
    assert float(model.logit_scale.grad) == 3.0
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("frozen", ["all", "towers", "nothing"])
@pytest.mark.parametrize("kind", ["xclip", "moted"])
def test_what_is_frozen_changes_nothing(
    kind: str, frozen: str, clip: Path, processor: VideoTextProcessor, motion_processor: VideoTextProcessor
) -> None:
    model: Any = xclip(processor) if kind == "xclip" else moted(motion_processor)
    used = processor if kind == "xclip" else motion_processor
    expected = explain_clip(model, used, clip, TEXT)
    model.requires_grad_(frozen != "all")
    if frozen == "towers":
        model.text_model.requires_grad_(False)
        model.vision_model.requires_grad_(False)
    assert_equal(explain_clip(model, used, clip, TEXT), expected)


def test_dropout_and_the_mode_of_the_caller_change_nothing(clip: Path, processor: VideoTextProcessor) -> None:
    model = xclip(processor)
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    expected = explain_clip(model, processor, clip, TEXT)
    assert_equal(explain_clip(model.train(), processor, clip, TEXT), expected)
    with torch.no_grad():
        assert_equal(explain_clip(model, processor, clip, TEXT), expected)
    with torch.inference_mode():
        assert_equal(explain_clip(model, processor, clip, TEXT), expected)


@pytest.mark.parametrize("kind", ["xclip", "moted"])
def test_sdpa_and_eager_models_are_explained_alike(
    kind: str, clip: Path, processor: VideoTextProcessor, motion_processor: VideoTextProcessor
) -> None:
    model: Any = xclip(processor) if kind == "xclip" else moted(motion_processor)
    used = processor if kind == "xclip" else motion_processor
    model.set_attn_implementation("sdpa")
    expected = explain_clip(model, used, clip, TEXT)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert_equal(explain_clip(model, used, clip, TEXT), expected, tolerance=1e-5)


# ------------------------------------------------------------------------------------------------- texts of MoTED


def motion_texts(model: MotedModel, processor: VideoTextProcessor, clip: Path, texts: list[str] | None) -> list[str]:
    explanation = explain_clip(model, processor, clip, TEXT, descriptions=texts)
    assert [text.text for text in explanation.streams[0].texts] == [TEXT]
    return [text.text for text in explanation.streams[1].texts]


def test_the_motion_stream_explains_the_descriptions_the_model_uses(
    clip: Path, motion_processor: VideoTextProcessor
) -> None:
    def texts_of(texts: list[str] | None, **fields: Any) -> list[str]:
        return motion_texts(moted(motion_processor, **fields), motion_processor, clip, texts)

    assert texts_of(DESCRIPTIONS) == DESCRIPTIONS
    assert texts_of(None) == [TEXT]
    assert texts_of(DESCRIPTIONS, use_conceptual=False) == DESCRIPTIONS[1:]
    assert texts_of(DESCRIPTIONS, use_discriminative=False) == DESCRIPTIONS[:1]
    assert texts_of(DESCRIPTIONS, use_discriminative=False, use_conceptual=False) == [TEXT]


def test_class_names_that_stand_in_for_descriptions_are_worth_a_warning(
    clip: Path, processor: VideoTextProcessor, motion_processor: VideoTextProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    explain_clip(moted(motion_processor), motion_processor, clip, TEXT, descriptions=DESCRIPTIONS)
    explain_clip(xclip(processor), processor, clip, TEXT)
    assert not caplog.messages
    explain_clip(moted(motion_processor), motion_processor, clip, TEXT)
    assert caplog.messages == [
        "this moted was made to read descriptions of the class and gets none, so the class name stands in for them; "
        "pass `descriptions`."
    ]


@pytest.mark.parametrize("encoder", ["serial", "none"])
def test_without_a_parallel_motion_encoder_there_is_one_stream(
    encoder: str, clip: Path, motion_processor: VideoTextProcessor
) -> None:
    model = moted(motion_processor, motion_encoder=encoder)
    (stream,) = explain_clip(model, motion_processor, clip, TEXT, descriptions=DESCRIPTIONS).streams
    assert stream.name == "image" and float(stream.patches.max()) > 0
    assert [text.text for text in stream.texts] == [TEXT]


# ------------------------------------------------------------------------------------------------------------ words


def test_pieces_are_joined_to_words_and_bytes_to_letters(tokenizer: Any) -> None:
    assert join_pieces(["a</w>", "ta", "ble</w>", ";</w>"], [0.1, 0.2, 0.3, 0.4]) == (
        ("a", 0.1),
        ("table", 0.5),
        (";", 0.4),
    )
    pieces = tokenizer.tokenize("Café 日本, don't")
    words = join_pieces(pieces, [1.0] * len(pieces))
    assert [word for word, _ in words] == ["café", "日本", ",", "don", "'t"]
    assert sum(share for _, share in words) == len(pieces) > len(words)


def test_pieces_of_another_tokenizer_are_refused() -> None:
    message = "piece 'ing' ends a text and not a word (no '</w>'): use a CLIP tokenizer."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        join_pieces(["wav", "ing"], [0.5, 0.5])


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("text", ["", "  ", None, ["wave", "jump"]])
def test_anything_but_one_text_is_refused(text: Any, clip: Path, processor: VideoTextProcessor) -> None:
    message = f"text={text!r} is not one text; pass one non-empty string, and call again for another one."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        explain_clip(xclip(processor), processor, clip, text)


def test_another_model_is_refused(clip: Path, processor: VideoTextProcessor) -> None:
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config={**tower, "vocab_size": 9}, vision_config={**tower, "image_size": 32})
    with pytest.raises(ValueError, match="^relevance maps read xclip and moted models; this is a 'clip'.$"):
        explain_clip(CLIPModel(config), processor, clip, TEXT)
    with pytest.raises(ValueError, match="this is a 'Linear'.$"):
        explain_clip(nn.Linear(1, 1), processor, clip, TEXT)


def test_descriptions_that_would_be_ignored_are_refused(
    clip: Path, processor: VideoTextProcessor, motion_processor: VideoTextProcessor
) -> None:
    with pytest.raises(ValueError, match="^descriptions were given to a 'xclip' model, which reads the class text"):
        explain_clip(xclip(processor), processor, clip, TEXT, descriptions=DESCRIPTIONS)
    with pytest.raises(ValueError, match="^descriptions='up' is one string; pass a list of them"):
        explain_clip(moted(motion_processor), motion_processor, clip, TEXT, descriptions="up")


def test_an_attention_without_probabilities_is_an_error(clip: Path, processor: VideoTextProcessor) -> None:
    model = xclip(processor)
    attention: Any = model.vision_model.encoder.layers[-1].self_attn
    forward = attention.forward
    attention.forward = lambda *args, **kwargs: (forward(*args, **kwargs)[0], None)
    with pytest.raises(ValueError, match="^an attention gave no probabilities under attn_implementation='eager'"):
        explain_clip(model, processor, clip, TEXT)


# ----------------------------------------------------------------------------------------------------- command line


def test_the_verb_prints_words_and_draws_the_picture(clip: Path, tmp_path: Path, processor: VideoTextProcessor) -> None:
    xclip(processor).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    arguments = [clip, "--text", "pushing off", "--model", tmp_path / "model", "--save", tmp_path / "out.png"]
    result = run_cli("explain", *arguments, columns=120)
    assert result.exit_code == 0, result.output
    assert "image stream: pushing off" in result.output
    rows = dict(re.findall(r"│ (\w+) +│ +(\d\.\d{3}) │", result.output))
    assert list(rows) == ["a", "video", "of", "pushing", "off"]
    assert sum(map(float, rows.values())) == pytest.approx(1, abs=0.003)
    assert (tmp_path / "out.png").is_file()


def test_the_verb_takes_descriptions_from_a_file(
    clip: Path, tmp_path: Path, motion_processor: VideoTextProcessor
) -> None:
    moted(motion_processor).save_pretrained(tmp_path / "model")
    motion_processor.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.json").write_text(json.dumps({"push": DESCRIPTIONS, "pull": ["a pull"]}))
    options = {"text": "push", "model": tmp_path / "model", "descriptions": tmp_path / "texts.json"}
    arguments = ["explain", clip, "--save", tmp_path / "out.png"]
    arguments += [part for name, value in options.items() for part in (f"--{name}", value)]
    result = run_cli(*arguments, columns=120)
    assert result.exit_code == 0, result.output
    titles = re.findall("((?:image|motion) stream: .*)$", result.output, re.MULTILINE)
    assert titles == ["image stream: push", *(f"motion stream: {text}" for text in DESCRIPTIONS)]


def test_the_verb_refuses_a_picture_it_cannot_write_before_it_loads_the_model(tmp_path: Path) -> None:
    arguments = ["explain", "a.mp4", "--text", "x", "--model", "nowhere", "--save", str(tmp_path / "out.mp4")]
    result = run_cli(*arguments, columns=120)
    assert result.exit_code == 1
    assert "'out.mp4' has no picture suffix; use for example .png." in result.output
