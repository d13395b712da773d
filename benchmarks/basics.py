"""What importing costs.

python -m benchmarks.basics
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .harness import Benchmark, Subject, run


def importing(statement: str) -> Callable[[], Any]:
    """A statement in a fresh Python."""
    return lambda: subprocess.run([sys.executable, "-c", statement], check=True)


BENCHMARKS = (
    Benchmark(
        "import in a fresh Python",
        (
            Subject("import torch, transformers", importing, ("import torch, transformers",)),
            Subject(
                "import kinetext",
                importing,
                ("import kinetext",),
                {"torch, transformers": "import torch, transformers"},
            ),
        ),
        headline="in a fresh Python",
    ),
)

if __name__ == "__main__":
    run("basics", BENCHMARKS)
