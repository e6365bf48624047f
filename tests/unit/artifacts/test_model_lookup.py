"""Where a config.json is found; the hub's by a fake hub, through the hub's own library."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from gptoss_bento.artifacts.model_lookup import NO_HUB, architecture_check, finder, is_folder
from gptoss_bento.config.settings import ServerSettings, Settings
from gptoss_bento.errors import ArtifactError, ConfigurationError
from gptoss_bento.planning.model_config import ModelConfig
from tests.configs import LARGE, OTHER, SMALL, folder_with
from tests.hub import COMMIT, MODEL, Hub, serving

FILES = {"config.json": json.dumps(SMALL).encode(), "model.safetensors": b"weights"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    folder = tmp_path / "hub-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", partial(huggingface_hub.try_to_load_from_cache, cache_dir=folder)
    )
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub(FILES)) as hub:
        monkeypatch.setattr(huggingface_hub, "hf_hub_url", partial(huggingface_hub.hf_hub_url, endpoint=hub.url))
        yield hub


def found(model: str, limit_s: float = 10, revision: str | None = None, **settings: object) -> ModelConfig:
    return finder(Settings(**settings), limit_s)(model, revision)  # type: ignore[arg-type]


def layers(config: ModelConfig) -> int | None:
    return config.shape.layers if config.shape else None


# Folders


def test_folder_is_identified_by_its_config(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", LARGE)

    config = found(str(folder), NO_HUB)

    assert (layers(config), config.names, config.origin) == (36, ("tuned",), f"config.json of {folder}")


def test_folder_is_named_by_what_its_path_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path / "tuned-v3", SMALL)
    (tmp_path / "current").symlink_to("tuned-v3")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "tuned-v3")

    assert {found(path).names for path in (str(tmp_path / "current"), ".", "../tuned-v3")} == {("tuned-v3",)}


def test_folder_of_the_hubs_cache_is_named_by_its_id(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "models--acme--tuned" / "snapshots" / COMMIT, SMALL)

    assert (found(str(folder)).names, found(str(folder)).hub_id) == (("acme/tuned",), "acme/tuned")


@pytest.mark.parametrize(("name", "reason"), [("missing", "is not there"), ("empty", r"holds no config\.json")])
def test_folder_without_a_config_is_unknown_with_the_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()

    config = found(str(tmp_path / name))

    assert config.unknown == f"the folder {tmp_path / name} {reason}".replace("\\", "")
    assert (config.shape, config.architecture, config.names) == (None, "", (name,))


def test_folder_with_a_broken_config_is_refused_with_the_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "broken", "{")

    with pytest.raises(ConfigurationError, match=f"^{folder}/config.json is not JSON"):
        found(str(folder))


def test_folder_with_a_config_that_is_no_text_is_refused_with_the_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "broken", "")
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match=f"^{folder}/config.json is not JSON"):
        found(str(folder))


def test_folder_with_weights_instead_of_a_config_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "large", "")
    os.truncate(folder / "config.json", 50_000_000)

    with pytest.raises(ArtifactError, match="50,000,000 bytes"):
        found(str(folder))


def test_folder_heeds_overrides(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", SMALL)

    assert layers(found(str(folder), engine={"hf_overrides": {"num_hidden_layers": 2}})) == 2


def test_path_is_a_folder_whether_it_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)

    assert [is_folder(model) for model in ("/x", "./x", "../x", "~/x", "models", "acme/x")] == [True] * 5 + [False]


# The hub


def test_hub_is_asked_for_the_config_alone_and_nothing_is_kept(hub: Hub, cache: Path) -> None:
    config = found(MODEL)

    assert (layers(config), config.names, config.origin) == (24, (MODEL,), f"config.json of {MODEL}")
    assert [request.path for request in hub.requests] == [f"/{MODEL}/resolve/main/config.json"]
    assert not cache.exists()  # a snapshot with a config.json alone would look like a model that was fetched


def test_hub_is_asked_for_the_revision_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.token = "hf_secret"

    assert layers(found(MODEL, revision="v2")) == 24
    (request,) = hub.requests
    assert request.path == f"/{MODEL}/resolve/v2/config.json"
    assert request.authorization == "Bearer hf_secret"


def test_hub_that_refuses_leaves_the_model_unknown(hub: Hub) -> None:
    hub.token = "another"

    config = found(MODEL)

    assert config.shape is None
    assert config.unknown.startswith("its config.json is not known: the request to the hub failed: 401")


def test_hub_without_a_config_refuses_the_model(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {"adapter_config.json": b"{}"}
    response = {"X-Error-Code": "EntryNotFound"}
    monkeypatch.setattr("tests.hub._Handler._answer", lambda self: self._send(404, b"", response))

    with pytest.raises(ArtifactError, match=rf"'{MODEL}' on the hub holds no config\.json"):
        found(MODEL)


def test_hub_that_cannot_be_reached_leaves_the_model_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = partial(huggingface_hub.hf_hub_url, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", nowhere)

    config = found(MODEL)

    assert config.names == (MODEL,)
    assert "Connection refused" in config.unknown


def test_hub_that_hangs_does_not_hold_up_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()  # set once the plan has done without
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *_, **__: answers.wait())

    assert found(MODEL, 0.2).unknown == "its config.json is not known: the hub did not answer within 0.2 s"
    answers.set()


def test_hub_that_is_switched_off_is_not_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert "HF_HUB_OFFLINE is set" in found(MODEL).unknown
    assert hub.requests == []


@pytest.mark.parametrize(
    ("limit_s", "reason"), [(0, "the hub was not asked"), (NO_HUB, "the hub's cache was not read")]
)
def test_hub_is_not_asked_without_time_for_it(hub: Hub, limit_s: float, reason: str) -> None:
    assert found(MODEL, limit_s).unknown == f"its config.json is not known: {reason}"
    assert hub.requests == []


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_hubs_cache_is_enough_without_the_hub(
    cache: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    folder_with(cache / "models--acme--tiny" / "snapshots" / COMMIT, LARGE)
    (cache / "models--acme--tiny" / "refs").mkdir()
    (cache / "models--acme--tiny" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    assert layers(found(MODEL, revision=revision)) == 36


@pytest.mark.usefixtures("hub")
def test_model_in_the_bento_is_enough_without_the_hub(tmp_path: Path) -> None:
    folder_with(tmp_path / "models--acme--tiny" / "snapshots" / "abc", LARGE)

    config = found(MODEL, NO_HUB, bento_models=tmp_path)

    assert (layers(config), config.names) == (36, (MODEL,))
    assert layers(found(MODEL, revision="v2", bento_models=tmp_path)) == 24  # it holds one revision


def test_name_that_is_no_hub_id_leaves_the_model_unknown() -> None:
    assert "a/b/c" in found("a/b/c").unknown


# Before the weights


def test_check_refuses_another_architecture(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "other", OTHER)

    with pytest.raises(ConfigurationError, match="Qwen3ForCausalLM"):
        architecture_check(Settings())(folder)


def test_check_lets_gpt_oss_and_what_was_allowed_pass(tmp_path: Path) -> None:
    architecture_check(Settings())(folder_with(tmp_path / "tuned", SMALL))
    allowing = Settings(server=ServerSettings(allow_other_architectures=True))
    architecture_check(allowing)(folder_with(tmp_path / "other", OTHER))


def test_check_refuses_a_model_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no config\.json: it is not a model"):
        architecture_check(Settings())(tmp_path)
