"""The prompt generator's text-only part: computed once for a text bank, and again whenever its weights may differ."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from testing_utils import tiny_model, tiny_texts, tiny_videos

from kinetext import TextBank, XCLIPModel
from kinetext.modeling import modeling_xclip


def logits(model: XCLIPModel, bank: TextBank) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video


def fresh_logits(model: XCLIPModel, bank: TextBank) -> torch.Tensor:
    """Without anything that was kept: the same texts in another bank."""
    return logits(model, bank.to("cpu"))


def count_calls(module: torch.nn.Module) -> list[int]:
    """Grows by the number of rows whenever the module is called."""
    calls: list[int] = []
    module.register_forward_hook(lambda *arguments: calls.append(arguments[2].shape[:-1].numel()))
    return calls


def test_queries_of_a_bank_are_made_once_and_for_no_video(model: XCLIPModel) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    calls = count_calls(model.prompts_generator.decoder[0].cross_attn.q_proj)
    first, second = logits(model, bank), logits(model, bank)
    assert calls == [3]
    assert torch.equal(first, second)
    assert torch.equal(first, fresh_logits(model, bank))


def test_tokens_and_gradients_make_them_each_time_for_all_videos_at_once(model: XCLIPModel) -> None:
    model.eval()
    calls = count_calls(model.prompts_generator.decoder[0].cross_attn.q_proj)
    model(pixel_values=tiny_videos(2), text_bank=model.encode_texts(**tiny_texts(3)))
    with torch.no_grad():
        model(pixel_values=tiny_videos(2), **tiny_texts(3))
    assert calls == [3, 3]


def change_in_place(model: XCLIPModel) -> None:
    with torch.no_grad():
        model.prompts_generator.decoder[0].norm1.weight.mul_(2)


def load_others(model: XCLIPModel) -> None:
    weights = {name: value * 1.5 for name, value in model.state_dict().items() if name.startswith("prompts_generator")}
    model.load_state_dict(weights, strict=False)


def train_with_a_fused_optimiser(model: XCLIPModel) -> None:
    """Its steps leave no trace in the versions of tensors."""
    model.train()
    optimizer = torch.optim.AdamW(model.prompts_generator.parameters(), lr=0.1, fused=True)
    model(pixel_values=tiny_videos(), **tiny_texts(3)).logits_per_video.sum().backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("change", [change_in_place, load_others, train_with_a_fused_optimiser])
def test_changed_weights_are_noticed(model: XCLIPModel, change: Callable[[Any], None]) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    before = logits(model, bank)
    change(model)
    assert not torch.equal(logits(model, bank), before)
    assert torch.equal(logits(model, bank), fresh_logits(model, bank))


def test_two_models_share_a_bank(model: XCLIPModel) -> None:
    model.eval()
    other = tiny_model().eval()
    other.load_state_dict(model.state_dict())
    change_in_place(other)
    bank = model.encode_texts(**tiny_texts(3))
    of_model, of_other = fresh_logits(model, bank), fresh_logits(other, bank)
    for _ in range(2):
        assert torch.equal(logits(model, bank), of_model)
        assert torch.equal(logits(other, bank), of_other)


def test_autocast_and_full_precision_take_turns(model: XCLIPModel) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    full = logits(model, bank)
    with torch.autocast("cpu", torch.bfloat16):
        half = logits(model, bank)
    assert torch.equal(logits(model, bank), full)
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_kinds_of_autocast_take_turns(model: XCLIPModel) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert torch.equal(logits(model, bank), fresh_logits(model, bank))


def test_a_bank_that_is_changed_in_place_is_noticed(model: XCLIPModel) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    logits(model, bank)
    bank.text_embeds.mul_(-1)
    assert torch.equal(logits(model, bank), fresh_logits(model, bank))


def test_adapters_that_are_switched_are_noticed(model: XCLIPModel) -> None:
    peft = pytest.importorskip("peft")
    settings = {"target_modules": r"prompts_generator.*q_proj", "init_lora_weights": False}
    bank = model.eval().encode_texts(**tiny_texts(3))
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    adapted.add_adapter("other", peft.LoraConfig(**settings))
    first = logits(adapted, bank)
    adapted.set_adapter("other")
    assert not torch.equal(logits(adapted, bank), first)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted, bank), fresh_logits(adapted, bank))


def test_weights_without_versions_are_read_anew(model: XCLIPModel) -> None:
    with torch.inference_mode():
        model = tiny_model().eval()
        bank = model.encode_texts(**tiny_texts(3))
        before = logits(model, bank)
        model.prompts_generator.decoder[0].norm1.weight.mul_(2)
        assert not torch.equal(logits(model, bank), before)


def test_what_is_kept_goes_with_the_bank(model: XCLIPModel) -> None:
    model.eval()
    bank = model.encode_texts(**tiny_texts(3))
    kept = len(modeling_xclip._queries_of_banks)
    logits(model, bank)
    assert len(modeling_xclip._queries_of_banks) == kept + 1
    del bank
    gc.collect()
    assert len(modeling_xclip._queries_of_banks) == kept


def test_without_prompt_layers_only_the_texts_are_scaled() -> None:
    model = tiny_model(prompt_layers=0).eval()
    bank = model.encode_texts(**tiny_texts(3))
    assert torch.equal(logits(model, bank), fresh_logits(model, bank))
