"""Models at work: exported graphs, compiled forwards, and classes of long videos and cameras."""

from .compile import compile_model
from .export import ExportedClassifier, export_model, load_exported
from .streaming import StreamEvent, StreamingClassifier, StreamResult, merge_events

__all__ = [
    "ExportedClassifier",
    "StreamEvent",
    "StreamResult",
    "StreamingClassifier",
    "compile_model",
    "export_model",
    "load_exported",
    "merge_events",
]
