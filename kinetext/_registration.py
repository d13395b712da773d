"""Makes Auto classes and pipelines of transformers use kinetext's classes, without importing them before it is needed.

Importing a model or processor class loads the heavy half of transformers (1.5 s), so `import kinetext` only registers
the configurations and stand-ins: classes that load the real one when an Auto class calls them. The stand-ins are put in
place when the module of the Auto class itself is imported, and so are the tasks of `pipeline(...)`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from transformers.models.auto.configuration_auto import AutoConfig

from .modeling.configuration_moted import MotedConfig
from .modeling.configuration_video_clip import VideoCLIPConfig
from .modeling.configuration_xclip import XCLIPConfig

_MODELING_AUTO = "transformers.models.auto.modeling_auto"
_PROCESSING_AUTO = "transformers.models.auto.processing_auto"
_PIPELINES = "transformers.pipelines"
_OUR_PIPELINES = f"{__package__}.pipelines"

# configuration -> the class that each Auto class returns for it, as names of `kinetext`
_MODELS: dict[Any, dict[str, str]] = {
    XCLIPConfig: {"AutoModel": "XCLIPModel", "AutoModelForVideoClassification": "XCLIPForVideoClassification"},
    MotedConfig: {"AutoModel": "MotedModel"},
    VideoCLIPConfig: {
        "AutoModel": "VideoCLIPModel",
        "AutoModelForVideoClassification": "VideoCLIPForVideoClassification",
    },
}
_PROCESSOR = "VideoTextProcessor"


def register_auto_classes() -> None:
    """Registers all model families with the Auto classes of transformers; `import kinetext` calls this."""
    for config_class in _MODELS:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    _when_imported(_MODELING_AUTO, _register_models)
    _when_imported(_PROCESSING_AUTO, _register_processors)
    _when_imported(_PIPELINES, _register_pipelines)


def _register_models(modeling_auto: ModuleType) -> None:
    for config_class, names in _MODELS.items():
        for auto_class, name in names.items():
            getattr(modeling_auto, auto_class).register(config_class, _stand_in(name, config_class), exist_ok=True)


def _register_processors(processing_auto: ModuleType) -> None:
    for config_class in _MODELS:
        processing_auto.AutoProcessor.register(config_class, _stand_in(_PROCESSOR, config_class), exist_ok=True)


def _register_pipelines(pipelines: ModuleType) -> None:
    """Adds our task, and puts a class in place of "video-classification" that differs from it for our models alone.

    transformers resolves the dotted names when such a pipeline is made; `register_pipeline` would want the classes.
    """
    tasks = pipelines.PIPELINE_REGISTRY.supported_tasks
    tasks["zero-shot-video-classification"] = {
        "impl": f"{_OUR_PIPELINES}.ZeroShotVideoClassificationPipeline",
        "pt": (_ZeroShotModel,),
        "default": {},  # no model: every choice would be a download that nobody asked for
        "type": "multimodal",
    }
    tasks["video-classification"]["impl"] = f"{_OUR_PIPELINES}.AnyVideoClassificationPipeline"


class _ZeroShotModel:
    """Loads the model of a zero-shot pipeline."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `kinetext.pipelines.VideoTextModel.from_pretrained`."""
        return importlib.import_module(_OUR_PIPELINES).VideoTextModel.from_pretrained(*args, **kwargs)


def _stand_in(name: str, config_class: type) -> type:
    """A class called `name` whose constructors for Auto classes are those of `kinetext.<name>`."""

    def delegate(method: str) -> Any:
        def call(cls: type, *args: Any, **kwargs: Any) -> Any:
            return getattr(getattr(sys.modules[__package__], name), method)(*args, **kwargs)

        return classmethod(call)

    methods = {method: delegate(method) for method in ("from_pretrained", "_from_config", "register_for_auto_class")}
    return type(name, (), {"__module__": __package__, "config_class": config_class, **methods})


def _when_imported(module_name: str, action: Callable[[ModuleType], None]) -> None:
    """Runs `action(module)` now if the module is loaded, else right after it is first imported."""
    if module_name in sys.modules:
        action(sys.modules[module_name])
    else:
        sys.meta_path.insert(0, _AfterImport(module_name, action))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds one module as Python would, and has `action` run after its body; stays until that was done once."""

    def __init__(self, module_name: str, action: Callable[[ModuleType], None]) -> None:
        self.module_name = module_name
        self.action = action
        self.own = threading.local()  # whether this thread asks the other finders

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The ordinary spec with `action` appended, for our module; None for every other."""
        if fullname != self.module_name or getattr(self.own, "is_asking", False):
            return None
        self.own.is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.own.is_asking = False
        if spec is None or spec.loader is None:
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self.action(module)
            with contextlib.suppress(ValueError):  # a spec may be executed twice
                sys.meta_path.remove(self)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
