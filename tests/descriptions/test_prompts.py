"""Prompts: the papers' words, versions that follow the wording, what is taken off an answer."""

import hashlib
import json

import pytest

from kinetext.descriptions.prompts import (
    CHARACTERISTIC,
    CONCEPTUAL,
    DISCRIMINATIVE,
    PROMPTS,
    Prompt,
    asked_again,
    messages_sha256,
)

NAMES = {"conceptual": {"name": "walk"}, "discriminative": {"name": "walk", "contrast": "run"}}
NAMES["characteristic"] = NAMES["conceptual"]


def sent(kind: str) -> str:
    (message,) = PROMPTS[kind].messages(**NAMES[kind])
    assert message["role"] == "user"
    return message["content"]


def test_conceptual_question_is_that_of_the_paper_after_two_exemplars() -> None:
    *exemplars, question = sent("conceptual").split("\n\n")
    assert question == "Q: What is the motion concept in a video of walk? A: "
    assert exemplars[0] == (
        "Q: What is the motion concept in a video of slapping? A: a quick hand movement striking against something."
    )
    assert len(exemplars) == 2


def test_discriminative_question_is_that_of_the_paper_after_two_exemplars() -> None:
    *exemplars, question = sent("discriminative").split("\n\n")
    assert question == (
        "Q: What are the useful features for distinguishing the original class walk from the similar class run? A:"
    )
    assert exemplars[0] == (
        "Q: What are the useful features for distinguishing the original class slapping from the similar class "
        "clapping? A: Direction of motion; Hand position; Contact surface; Number of hands involved; Force applied"
    )
    assert len(exemplars) == 2


def test_characteristic_prompt_is_that_of_the_paper() -> None:
    assert sent("characteristic") == (
        "Characteristic motion of air drumming action is: doing rhythmic, exaggerated hand and arm movement. The "
        "characteristic motion of abseiling is: doing a controlled descent down a vertical drop. The characteristic "
        "motion of swing dancing is: doing energetic, bouncy movements with lots of spins, kicks, and lifts. "
        "Similarly, provide the characteristic motions of action walk."
    )


@pytest.mark.parametrize(
    ("prompt", "kind", "sha256"),
    [
        (CONCEPTUAL, "conceptual", "85b012b48a44a99e3e25575595b54666b1b1b4f70da7a469f5b089ca631ef5be"),
        (DISCRIMINATIVE, "discriminative", "51b01a3c792a7376113398e8a80236c2403f860f0134fac52d36ed4a4f459d9f"),
        (CHARACTERISTIC, "characteristic", "9bff068c3d0fb42dacc1104011611a122cd6f2232bb2f11324c85a6473e0e437"),
    ],
)
def test_a_changed_wording_needs_a_new_id(prompt: Prompt, kind: str, sha256: str) -> None:
    ids = {"conceptual": "moted-conceptual-1", "discriminative": "moted-discriminative-1"}
    assert prompt.prompt_id == ids.get(kind, "devaraj-characteristic-1")
    assert hashlib.sha256(sent(kind).encode()).hexdigest() == sha256, "give the new wording a new prompt_id"


def test_hash_is_of_what_is_sent() -> None:
    messages = CONCEPTUAL.messages(name="walk")
    told = json.dumps([{"content": messages[0]["content"], "role": "user"}], ensure_ascii=False)
    assert messages_sha256(messages) == hashlib.sha256(told.encode()).hexdigest()
    assert messages_sha256(messages) != messages_sha256(CONCEPTUAL.messages(name="run"))


def test_braces_in_a_class_name_stay() -> None:
    assert "video of {odd}? A: " in CONCEPTUAL.messages(name="{odd}")[0]["content"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("  the arm  rises\u00a0fast. \n", "the arm rises fast."),
        ("A: the arm rises.", "the arm rises."),
        ("Characteristic motion of arm wrestling action is: the arm rises.", "the arm rises."),
        ("The characteristic motions of archery are: the arm rises.", "the arm rises."),
        ("“the arm rises.”", "the arm rises."),
        ('A: "the arm rises."', "the arm rises."),
        ("A hand: it rises.", "A hand: it rises."),
        ("A: one: two", "one: two"),
        ("the arm's path is: upwards", "the arm's path is: upwards"),
        ("'up' and then 'down'", "'up' and then 'down'"),
        ("the arm rises.\nthe arm falls.", "the arm rises.\nthe arm falls."),
        ("", ""),
        ('"', '"'),
    ],
)
def test_what_is_taken_off_an_answer(answer: str, text: str) -> None:
    assert Prompt.cleaned(answer) == text


def test_asking_again_repeats_the_conversation_and_gives_the_reasons() -> None:
    first = CONCEPTUAL.messages(name="walk")
    again = asked_again(first, " \n", ["it is empty", "it has one word"])
    assert again[0] == first[0]
    assert [turn["role"] for turn in again] == ["user", "assistant", "user"]
    assert again[1]["content"] == "(no answer)"
    assert again[2]["content"].startswith("This answer cannot be used: it is empty; it has one word. ")
