"""The first layer of every model, as transformers, accelerate and peft ask for it."""

import copy

import pytest
from testing_utils import tiny_config, tiny_model, tiny_moted, tiny_video_clip, tiny_video_clip_config

from kinetext import VideoCLIPForVideoClassification, XCLIPForVideoClassification

WITH_TEXTS = {"xclip": tiny_model, "moted": tiny_moted, "video_clip": tiny_video_clip}
CLASSIFIERS = {
    "xclip": lambda: XCLIPForVideoClassification(tiny_config(num_labels=3)),
    "video_clip": lambda: VideoCLIPForVideoClassification(tiny_video_clip_config(num_labels=3)),
}


@pytest.mark.parametrize("family", WITH_TEXTS)
def test_models_with_a_text_tower_begin_with_its_tokens(family: str) -> None:
    model = WITH_TEXTS[family]()
    assert model.get_input_embeddings() is model.text_model.embeddings.token_embedding

    other = copy.deepcopy(model.get_input_embeddings())
    model.set_input_embeddings(other)
    assert model.text_model.embeddings.token_embedding is other


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_classifiers_begin_with_the_patches(family: str) -> None:
    model = CLASSIFIERS[family]()
    assert model.get_input_embeddings() is model.vision_model.embeddings.patch_embedding

    other = copy.deepcopy(model.get_input_embeddings())
    model.set_input_embeddings(other)
    assert model.vision_model.embeddings.patch_embedding is other
