"""One tiny X-CLIP per run, a copy of it per test."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from testing_utils import tiny_model

from kinetext import XCLIPModel


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread and wait for it where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _shared_model() -> XCLIPModel:
    return tiny_model()


@pytest.fixture
def model(_shared_model: XCLIPModel) -> XCLIPModel:
    return deepcopy(_shared_model)
