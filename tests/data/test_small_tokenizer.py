"""The learnt tokenizer: laid out as CLIP's, takes any text, and fits the pooling of CLIP text towers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from testing_utils import tiny_model
from transformers import AutoTokenizer, CLIPTokenizer

from kinetext.data.small_tokenizer import small_tokenizer

TEXTS = ["moving left", "moving right", "rotating clockwise", "growing"]
WORDS = [f"{a}{b}{c}" for a in "bcdfg" for b in "aeiou" for c in "klmnp"]  # each pair of letters as often as others
# Anything that can stand in a CSV file.
ODD_TEXTS = [
    "日本語 🎉",
    "🏳️‍🌈",
    "İstanbul ß ﬁ",
    "e\u0301 é",
    "\x00\x7f\x9f",
    "\u200b\ufeff",
    "|`{{}}`|",
    "a\u2028b",
    "x" * 70,
]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return small_tokenizer(TEXTS)


def test_the_end_token_has_the_highest_id(tokenizer: CLIPTokenizer) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == len(tokenizer.get_vocab())
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # CLIP's way: the first highest id is the end


def test_words_it_has_learnt_are_single_tokens(tokenizer: CLIPTokenizer) -> None:
    for text in TEXTS:
        tokens = tokenizer.tokenize(text)
        assert tokens == [f"{word}</w>" for word in text.split()]
    assert tokenizer("Moving  LEFT")["input_ids"] == tokenizer("moving left")["input_ids"]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_any_text_becomes_ids_without_unknown_tokens(tokenizer: CLIPTokenizer, text: str) -> None:
    first, *inner, last = tokenizer(text)["input_ids"]
    assert (first, last) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert all(index < tokenizer.bos_token_id for index in inner)
    known = small_tokenizer([text])(text)["input_ids"]  # also where it was learnt from
    assert known[-1] == max(known) and known.count(max(known)) == 1


@pytest.mark.parametrize("text", ["moving sideways", "日本語 🎉", "naïve façade", "| ` { }"])
def test_ids_become_the_text_again(tokenizer: CLIPTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


def test_different_texts_have_different_ids(tokenizer: CLIPTokenizer) -> None:
    texts = [*TEXTS, "moving", "left moving", "ab", "a b", "日本", "本日"]
    assert len({tuple(tokenizer(text)["input_ids"]) for text in texts}) == len(texts)


def test_texts_are_limited_to_the_context_of_clip(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.model_max_length == 77
    ids = tokenizer("left " * 100, truncation=True)["input_ids"]
    assert len(ids) == 77 and ids[-1] == tokenizer.eos_token_id


def test_the_same_texts_give_the_same_tokenizer_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = (small_tokenizer(iter(TEXTS)).backend_tokenizer.to_str() for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_the_order_of_texts_does_not_matter() -> None:
    first, second = (small_tokenizer(texts).backend_tokenizer.to_str() for texts in (WORDS, WORDS[::-1]))
    assert first == second


def test_every_process_learns_the_same_tokenizer() -> None:
    code = (
        "from kinetext.data.small_tokenizer import small_tokenizer\n"
        f"print(small_tokenizer({WORDS}).backend_tokenizer.to_str())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in processes)
    assert all(process.returncode == 0 for process in processes)
    assert first == second


def test_it_survives_saving(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, *ODD_TEXTS]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert (len(loaded), loaded.model_max_length, loaded.eos_token_id) == (len(tokenizer), 77, len(tokenizer) - 1)


@pytest.mark.parametrize("max_tokens", [514, 520, 1024])
def test_the_vocabulary_is_bounded(max_tokens: int) -> None:
    assert 514 <= len(small_tokenizer(WORDS, max_tokens=max_tokens)) <= max_tokens
    assert len(small_tokenizer([], max_tokens=max_tokens)) == 514


def test_too_small_a_vocabulary_is_an_error() -> None:
    message = "max_tokens=513 is too small; bytes and special tokens alone are 514."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        small_tokenizer(TEXTS, max_tokens=513)


def test_the_text_tower_reads_its_feature_at_the_end_token(tokenizer: CLIPTokenizer) -> None:
    model = tiny_model(text={"vocab_size": len(tokenizer), "max_position_embeddings": 77})
    texts = ["left", "moving left and right 日本語"]
    with torch.no_grad():
        together = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
        alone = [model.get_text_features(**tokenizer([t], return_tensors="pt")).pooler_output for t in texts]
        states = model.text_model(**tokenizer(texts[1:], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(model.text_projection(states[:, -1]), alone[1], rtol=0, atol=1e-5)
