from __future__ import annotations

import pytest

from gptoss_bento.config.environment import load_settings


def test_hub_home_is_below_base_path() -> None:
    assert load_settings({"BASE_PATH": "/data"}).derived == {"HF_HOME": ("/data/huggingface-cache/hub", "BASE_PATH")}


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_hub_home_of_the_operator_wins_over_base_path(name: str) -> None:
    assert load_settings({"BASE_PATH": "/data", name: "/mine"}).derived == {}
