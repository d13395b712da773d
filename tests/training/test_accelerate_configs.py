"""The configurations in configs/accelerate/ are what accelerate's own launcher, configuration and plugins take."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from testing_utils import tiny_clip_config
from torch.distributed.fsdp import CPUOffloadPolicy, StateDictType
from transformers.modeling_layers import GradientCheckpointingLayer

from kinetext import (
    MotedConfig,
    MotedModel,
    VideoCLIPConfig,
    VideoCLIPForVideoClassification,
    VideoCLIPModel,
    XCLIPConfig,
    XCLIPForVideoClassification,
    XCLIPModel,
)

CONFIGS = Path(__file__).resolve().parents[2] / "configs/accelerate"
KINDS = {
    "cpu": DistributedType.MULTI_GPU,
    "ddp": DistributedType.MULTI_GPU,
    "ddp_machines": DistributedType.MULTI_GPU,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "fsdp2": DistributedType.FSDP,
}


def launch_options(name: str) -> Any:
    """What the launcher makes of a configuration."""
    path = str(CONFIGS / f"{name}.yaml")
    options, config, _ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", path, "train.py"])
    )
    options.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)  # as `launch_command` does
    return options


def test_every_configuration_is_tested() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_the_launcher_takes_it_for_what_it_is(name: str) -> None:
    config, options = load_config_from_file(str(CONFIGS / f"{name}.yaml")), launch_options(name)

    assert config.distributed_type == KINDS[name]
    assert options.num_processes == config.num_processes and options.num_machines == config.num_machines
    assert options.mixed_precision == ("no" if name == "cpu" else "bf16")
    assert (options.multi_gpu, options.use_deepspeed, options.use_fsdp) == (
        "ddp" in name or name == "cpu",
        name == "deepspeed_zero2",
        name == "fsdp2",
    )


@pytest.mark.parametrize("name", KINDS)
def test_the_command_in_the_header_can_be_launched(name: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text("utf-8")
    command = re.search(r"^# accelerate launch ([^\\\n]+(?:\\\n#.+)?)$", text, re.MULTILINE)

    assert command is not None
    options = launch_command_parser().parse_args(command[1].replace("\\\n#", " ").split())
    assert (options.config_file, options.training_script) == (f"configs/accelerate/{name}.yaml", "train.py")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a process the environment that the launcher would."""

    def launch(name: str) -> None:
        options = launch_options(name)
        environment = (
            prepare_deepspeed_cmd_env(options)[1] if name == "deepspeed_zero2" else prepare_multi_gpu_env(options)
        )
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)

    return launch


def test_fsdp2_is_constructed(launched: Any) -> None:
    launched("fsdp2")
    plugin = FullyShardedDataParallelPlugin()

    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type is StateDictType.FULL_STATE_DICT
    assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing
    assert not isinstance(plugin.cpu_offload, CPUOffloadPolicy)


MODELS = {
    "xclip": lambda clip: XCLIPModel(XCLIPConfig.from_clip_config(clip)),
    "xclip, linear": lambda clip: XCLIPForVideoClassification(XCLIPConfig.from_clip_config(clip)),
    "video_clip": lambda clip: VideoCLIPModel(VideoCLIPConfig.from_clip_config(clip)),
    "video_clip, linear": lambda clip: VideoCLIPForVideoClassification(VideoCLIPConfig.from_clip_config(clip)),
    "text4vis": lambda clip: VideoCLIPModel(VideoCLIPConfig.from_clip_config(clip, temporal_pooling="transformer")),
    **{
        f"moted, {kind}": lambda clip, kind=kind: MotedModel(MotedConfig.from_clip_config(clip, motion_encoder=kind))
        for kind in ("parallel", "serial", "none")
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_fsdp2_cuts_every_model_into_its_layers(name: str, launched: Any) -> None:
    launched("fsdp2")
    with torch.device("meta"):
        model = MODELS[name](tiny_clip_config())
    is_cut = fsdp2_prepare_auto_wrap_policy(FullyShardedDataParallelPlugin(), model)

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert is_cut is not None and len(layers) >= 2
    assert all(is_cut(layer) for layer in layers)
    assert not is_cut(model)


def test_deepspeed_is_constructed_and_leaves_accumulation_to_the_recipe(launched: Any) -> None:
    launched("deepspeed_zero2")
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")

    settings = plugin.deepspeed_config
    assert settings["zero_optimization"]["stage"] == plugin.zero_stage == 2
    assert settings["bf16"] == {"enabled": True}
    assert not plugin.zero3_init_flag
    for name in ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size"):
        assert settings[name] == "auto"
