from pathlib import Path

import pytest
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny text model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model("text").save_pretrained(folder)
    return folder
