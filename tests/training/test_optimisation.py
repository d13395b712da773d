"""Parameter groups: ten times the rate for what X-CLIP adds, no decay where the original has none."""

from testing_utils import tiny_model, tiny_moted

from kinetext.training.optimisation import parameter_groups


def test_groups_hold_every_trainable_parameter_once_with_its_rate_and_decay() -> None:
    model = tiny_model()
    model.freeze_text()
    groups = parameter_groups(model, learning_rate=1e-3, new_module_lr_factor=10.0, weight_decay=0.1)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }

    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(settings) == len(trainable)
    expected = {
        "vision_model.encoder.layers.0.mlp.fc1.weight": (1e-3, 0.1),
        "vision_model.encoder.layers.0.mlp.fc1.bias": (1e-3, 0.0),
        "vision_model.embeddings.position_embedding.weight": (1e-3, 0.0),
        "vision_model.encoder.layers.0.message_fc.weight": (1e-2, 0.1),
        "vision_model.encoder.layers.0.message_ln.weight": (1e-2, 0.0),
        "mit.position_embedding": (1e-2, 0.0),
        "prompts_visual_projection": (1e-2, 0.1),
        "prompts_generator.alpha": (1e-2, 0.0),
        "visual_projection.weight": (1e-3, 0.1),
    }
    assert {name: settings[id(trainable[name])] for name in expected} == expected


def test_moted_trains_what_it_adds_and_the_scale() -> None:
    model = tiny_moted()
    model.freeze_text()
    groups = parameter_groups(model, learning_rate=1e-3, new_module_lr_factor=10.0, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = {
        names[id(parameter)]: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }

    assert set(settings) == {*model.new_parameter_names(), "logit_scale"}
    assert settings["logit_scale"] == (1e-3, 0.0)
    assert settings["motion_encoder.temporal_position_embedding"] == (1e-2, 0.0)
    assert settings["motion_projection.weight"] == (1e-2, 0.1)


def test_freezing_the_text_freezes_tower_projection_and_scale_only() -> None:
    model = tiny_model()
    model.freeze_text()

    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if name.startswith(("text_model.", "text_projection."))
    } | {"logit_scale"}
