"""The Harmony vocabulary for the tests of the demo model, from wherever this machine has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.training import harmony_text


@pytest.fixture(scope="session")
def vocabulary() -> Path:
    path = prepare.find_vocabulary(environment.cache_dir())
    harmony_text.use_vocabulary(path)
    return path
