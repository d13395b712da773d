"""Template sets: as published, and what is said of one that is not there."""

import json
from pathlib import Path

import pytest

from kinetext.data.prompt_templates import load_templates, shipped_templates

SIZES = {
    "actionclip_16": 16,
    "clip_kinetics700": 28,
    "clip_ucf101": 48,
    "text4vis": 1,
    "vifi_clip": 1,
    "xclip": 1,
    "xclip_16": 16,
}
PUBLISHED_AS = {
    "text4vis": "text4vis_train",
    "vifi_clip": "vificlip_train",
    "xclip": "xclip_train",
    "xclip_16": "xclip_supp_16",
}


def test_every_set_has_its_templates_with_one_place_for_the_class() -> None:
    assert {name: len(load_templates(name)) for name in shipped_templates()} == SIZES
    for name in shipped_templates():
        assert all(template.count("{}") == 1 for template in load_templates(name))
        assert len(set(load_templates(name))) == SIZES[name]


def test_x_clips_and_actionclips_templates_differ_in_two() -> None:
    assert set(load_templates("actionclip_16")) - set(load_templates("xclip_16")) == {
        "{} this is an action",
        "Can you recognize the action of {}?",
    }
    assert load_templates("vifi_clip") == ("a photo of a {}.",)


def test_templates_are_the_published_ones(shared_dir: Path) -> None:
    published = json.loads((shared_dir / "data/labels/prompt_templates.json").read_text("utf-8"))
    for name in shipped_templates():
        texts = [text.replace("{label}", "{}") for text in published[PUBLISHED_AS.get(name, name)]]
        assert list(load_templates(name)) == texts


def test_an_unknown_set_is_an_error_that_names_the_others() -> None:
    message = "^there is no template set 'clip'; choose one of actionclip_16, clip_kinetics700, clip_ucf101, text4vis, "
    with pytest.raises(ValueError, match=message):
        load_templates("clip")
