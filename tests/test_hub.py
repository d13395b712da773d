"""Through the real Hub client against a local stand-in: what stock transformers pushed loads here."""

from pathlib import Path

PUSH_STOCK = """
import sys, torch
from transformers import XCLIPConfig, XCLIPModel
torch.manual_seed(0)
config = XCLIPConfig(
    text_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=99),
    vision_config=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                       mit_hidden_size=32, mit_intermediate_size=64, mit_num_attention_heads=2,
                       image_size=32, patch_size=16, num_frames=4),
    projection_dim=32, prompt_num_attention_heads=2,
)
model = XCLIPModel(config).eval()
model.push_to_hub("alice/stock")
inputs = dict(input_ids=torch.tensor([[1, 5, 98], [1, 7, 98]]), pixel_values=torch.randn(2, 4, 3, 32, 32))
with torch.no_grad():
    torch.save((inputs, model(**inputs).logits_per_video), sys.argv[1])
"""

LOAD_OURS = """
import sys, torch
from kinetext import XCLIPModel
inputs, expected = torch.load(sys.argv[1], weights_only=True)
model, report = XCLIPModel.from_pretrained("alice/stock", output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
with torch.no_grad():
    print(float((model.eval()(**inputs).logits_per_video - expected).abs().max()))
model.push_to_hub("alice/ours")
"""


def test_a_stock_repository_downloads_with_stock_logits_and_ours_carries_its_code(hub_client, tmp_path: Path) -> None:
    expected = str(tmp_path / "expected.pt")
    hub_client.run("-c", PUSH_STOCK, expected)

    assert float(hub_client.run("-c", LOAD_OURS, expected).split()[-1]) <= 1e-5
    pushed = hub_client.hub.files("alice/ours")
    assert {"modeling_xclip.py", "modeling_video_text.py", "configuration_xclip.py"} <= set(pushed)
    assert not any(b"tok-alice" in content for content in pushed.values())
