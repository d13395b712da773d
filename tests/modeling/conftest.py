"""One tiny X-CLIP per run, a copy of it per test."""

from copy import deepcopy

import pytest
from testing_utils import tiny_model

from kinetext import XCLIPModel


@pytest.fixture(scope="session")
def _shared_model() -> XCLIPModel:
    return tiny_model()


@pytest.fixture
def model(_shared_model: XCLIPModel) -> XCLIPModel:
    return deepcopy(_shared_model)
