from __future__ import annotations

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError


def test_hub_home_is_below_base_path() -> None:
    assert load_settings({"BASE_PATH": "/data"}).derived == {"HF_HOME": ("/data/huggingface-cache/hub", "BASE_PATH")}


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_hub_home_of_the_operator_wins_over_base_path(name: str) -> None:
    assert load_settings({"BASE_PATH": "/data", name: "/mine"}).derived == {}


@pytest.mark.parametrize("text", ["", " ", "None", "null"])
@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_hub_variable_without_a_value_leaves_base_path_its_place(name: str, text: str) -> None:
    settings = load_settings({"BASE_PATH": "/data", name: text})

    assert settings.derived == {"HF_HOME": ("/data/huggingface-cache/hub", "BASE_PATH")}


@pytest.mark.parametrize(
    ("environ", "origin"),
    [
        ({"DOWNLOAD_DIR": "/weights"}, "DOWNLOAD_DIR"),
        ({"VLLM_EXTRA_ARGS": "--download-dir /weights"}, "VLLM_EXTRA_ARGS"),
        ({"DOWNLOAD_DIR": "/weights", "BASE_PATH": "/data"}, "DOWNLOAD_DIR"),
        ({"DOWNLOAD_DIR": "/weights", "HF_HOME": "/home"}, "DOWNLOAD_DIR"),
        ({"DOWNLOAD_DIR": "/weights", "HF_HUB_CACHE": "/weights"}, "DOWNLOAD_DIR"),
    ],
)
def test_folder_for_downloads_is_the_hubs_cache(environ: dict[str, str], origin: str) -> None:
    settings = load_settings(environ)

    assert settings.derived == {"HF_HUB_CACHE": ("/weights", origin)}
    assert settings.engine["download_dir"] == "/weights"


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_two_folders_for_downloads_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DOWNLOAD_DIR: .*the folder of {name}, which is '/b'"):
        load_settings({"DOWNLOAD_DIR": "/a", name: "/b"})
