from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_bento.bento.service_config import describe, weights
from gptoss_bento.config.profile import load_profile
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.errors import ConfigurationError

# BentoML loads its image class at first use, and with it code that pathspec and pydantic call deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def variables(options: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in options["envs"]}


@pytest.mark.parametrize("profile", [None, "auto"])
def test_profile_that_is_missing_leaves_resources_to_the_serving_machine(profile: str | None) -> None:
    bundle = describe(profile)

    assert bundle.profile == "auto"
    assert "resources" not in bundle.options
    assert "envs" not in bundle.options
    assert bundle.options["traffic"] == {"timeout": 3600}
    assert bundle.options["image"].base_image.startswith("nvidia/cuda:")


@pytest.mark.parametrize("name", ["demo", "gpt-oss-20b", "gpt-oss-120b"])
def test_bundle_declares_the_resources_of_its_profile(name: str) -> None:
    bundle, profile = describe(name), load_profile(name)

    assert bundle.profile == name
    assert bundle.options["description"] == profile.description
    assert bundle.options["resources"] == profile.service.resources
    assert bundle.options["traffic"] == profile.service.traffic
    assert bundle.options["labels"] == {
        "profile": name,
        "model": profile.model.source,
        "platform": "cpu" if name == "demo" else "cuda",
    }


@pytest.mark.parametrize("name", ["demo", "gpt-oss-20b", "gpt-oss-120b"])
def test_deployment_serves_the_profile_it_was_built_for(name: str) -> None:
    assert variables(describe(name).options)["PROFILE"] == name


@pytest.mark.parametrize(
    ("name", "image"), [("demo", "python:3.11"), ("gpt-oss-20b", "nvidia/cuda"), ("gpt-oss-120b", "nvidia/cuda")]
)
def test_image_has_cuda_where_the_profile_needs_a_gpu(name: str, image: str) -> None:
    assert describe(name).options["image"].base_image.startswith(image)


def test_profile_can_be_built_for_amd() -> None:
    options = describe("gpt-oss-20b", platform="rocm").options

    assert options["image"].base_image.startswith("vllm/vllm-openai-rocm:")
    assert options["labels"]["platform"] == "rocm"
    assert options["resources"] == {"gpu": 1, "memory": "32Gi"}  # the type is one of NVIDIA's


def test_weights_of_a_profile_are_those_that_serve() -> None:
    carried = weights("gpt-oss-20b")

    assert (carried.model_id, carried.revision) == ("openai/gpt-oss-20b", "main")
    assert carried.exclude == ["original/**", "metal/**"]


@pytest.mark.parametrize("profile", ["demo", "auto"])
def test_profile_without_a_model_on_the_hub_carries_none(profile: str) -> None:
    with pytest.raises(ConfigurationError, match="names no model of the hub"):
        weights(profile)


def test_profiles_variables_go_into_the_deployment(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    model = {"source": "a/b", "served_names": ["x"]}
    service = {"environment": {"MAX_MODEL_LEN": "1k"}}
    path.write_text(yaml.safe_dump({"name": "mine", "description": "d", "model": model, "service": service}))

    assert variables(describe(str(path)).options)["MAX_MODEL_LEN"] == "1k"


def test_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'demo'"):
        describe("dmeo")


# What the operator's variables change


def test_address_and_the_time_of_a_request_come_from_the_settings() -> None:
    options = describe("demo", ServerSettings(host="0.0.0.0", port=8080, request_timeout=60)).options  # noqa: S104

    assert options["http"] == {"host": "0.0.0.0", "port": 8080}  # noqa: S104
    assert options["traffic"]["timeout"] == 60


@pytest.mark.parametrize("profile", [None, "demo"])
def test_address_without_settings_is_bentomls(profile: str | None) -> None:
    options = describe(profile, ServerSettings()).options

    assert "http" not in options
    assert "ssl" not in options
    assert options["traffic"] == {"timeout": 3600}


def test_certificates_turn_tls_on() -> None:
    assert describe(None, tls={"certfile": "/c.pem", "keyfile": "/k.pem"}).options["ssl"] == {
        "enabled": True,
        "certfile": "/c.pem",
        "keyfile": "/k.pem",
    }


@pytest.mark.parametrize("profile", [None, "demo"])
def test_workers_are_started_by_bentoml(profile: str | None) -> None:
    assert describe(profile, workers=4).options["workers"] == 4


@pytest.mark.parametrize(
    ("profile", "resources"),
    [
        ("gpt-oss-20b", {"gpu_type": "nvidia-l4", "memory": "32Gi"}),
        ("gpt-oss-120b", {"gpu_type": "nvidia-h100-80gb", "memory": "96Gi"}),
        ("demo", load_profile("demo").service.resources),
    ],
)
def test_gpu_count_is_left_out_where_it_serves(profile: str, resources: dict[str, Any]) -> None:
    declared, served = describe(profile).options, describe(profile, serving=True).options

    assert served.pop("resources") == resources
    assert declared.pop("resources") == load_profile(profile).service.resources
    assert served.pop("image").base_image == declared.pop("image").base_image
    assert served == declared


def test_gpu_count_alone_leaves_no_resources(tmp_path: Path) -> None:
    """BentoML refuses a service with an empty set of them."""
    path = tmp_path / "mine.yaml"
    model = {"source": "a/b", "served_names": ["x"]}
    service = {"resources": {"gpu": 2}}
    path.write_text(yaml.safe_dump({"name": "mine", "description": "d", "model": model, "service": service}))

    assert describe(str(path)).options["resources"] == {"gpu": 2}
    assert "resources" not in describe(str(path), serving=True).options


def test_gpu_count_is_missing_without_a_profile() -> None:
    assert "resources" not in describe(None, serving=True).options


def test_bento_leaves_the_number_of_workers_to_the_machine_that_serves_it() -> None:
    assert "workers" not in describe("demo").options
