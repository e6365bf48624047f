from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from gptoss_bento.config import process_environment
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError


def test_exit_note_is_named_for_workers_and_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert process_environment.exit_note_path() is None

    path = process_environment.set_exit_note_path()

    assert process_environment.exit_note_path() == path
    assert not path.exists()


def test_exit_notes_of_two_supervisors_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})

    assert process_environment.set_exit_note_path() != process_environment.set_exit_note_path()


# The plan already holds the operator's own values, so it wins over accidental values here.


def test_apply_overwrites_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAID": "operator", "OTHER": "operator"})

    process_environment.apply({"SAID": "plan", "PLANNED": "plan"})

    assert os.environ == {"SAID": "plan", "PLANNED": "plan", "OTHER": "operator"}


def test_apply_removes_the_port_of_worker_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_PORT": "tcp://10.0.0.1:8000"})

    process_environment.apply({})

    assert os.environ == {}


@pytest.mark.parametrize("inherited", [{}, {"PYTHONPATH": ""}])
def test_import_path_is_the_folder_alone_where_none_is_inherited(
    inherited: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", inherited)

    assert process_environment.import_path_from(Path("/there/src")) == {"PYTHONPATH": "/there/src"}


def test_extended_variables_win_and_leave_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAID": "operator", "OTHER": "operator"})

    extended = process_environment.extended({"SAID": "plan", "PLANNED": "plan"})

    assert extended == {"SAID": "plan", "PLANNED": "plan", "OTHER": "operator"}
    assert os.environ == {"SAID": "operator", "OTHER": "operator"}


@pytest.mark.parametrize(
    ("variables", "keys"),
    [
        ({}, ()),
        ({"API_KEY": ""}, ()),
        ({"API_KEY": "null", "VLLM_API_KEY": "b"}, ("b",)),
        ({"API_KEY": "a"}, ("a",)),
        ({"API_KEY": "a, b"}, ("a", "b")),
        ({"VLLM_API_KEY": "b"}, ("b",)),
        ({"API_KEY": "a", "VLLM_API_KEY": "b"}, ("a",)),
    ],
)
def test_api_keys_are_taken_from_either_variable_and_hidden_from_vllm(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], keys: tuple[str, ...]
) -> None:
    for name in ("API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_environment.take_api_keys() == keys
    assert "VLLM_API_KEY" not in os.environ
    assert process_environment.take_api_keys() == keys  # a worker reads what its supervisor left


def test_apply_derived_sets_what_follows_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"BASE_PATH": "/data"})

    process_environment.apply_derived(load_settings())

    assert os.environ["HF_HOME"] == "/data/huggingface-cache/hub"


@pytest.mark.parametrize("text", ["", " ", "None", "null"])
def test_apply_derived_takes_library_variables_that_say_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    said = {
        "HF_HOME": text,
        "VLLM_ROCM_USE_AITER": text,
        "HF_TOKEN": "secret",
        "CUDA_VISIBLE_DEVICES": text,
        "MINE": text,
    }
    monkeypatch.setattr(os, "environ", said.copy())
    settings = load_settings()

    process_environment.apply_derived(settings)

    assert os.environ == {"HF_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": text, "MINE": text}
    assert settings.process == os.environ


def test_metrics_folder_is_the_operators_or_none(tmp_path: Path) -> None:
    (tmp_path / "gauge_livesum_1.db").touch()

    assert process_environment.metrics_folder({}) is None
    assert process_environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}) == tmp_path
    assert process_environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "new")}) == tmp_path / "new"


@pytest.mark.parametrize("name", ["", "thesis.txt"])
def test_metrics_folder_that_holds_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "thesis.txt").touch()
    folder = tmp_path if name == "" else tmp_path / name
    with pytest.raises(ConfigurationError, match=r"PROMETHEUS_MULTIPROC_DIR must be .*, got .*(thesis.txt|a file)"):
        process_environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(folder)})


# A process that begins with the variables of another one


def test_restore_leaves_exactly_the_variables_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAME": "1", "OTHER": "here", "GONE": "1"})
    kept = process_environment.snapshot()
    assert kept == os.environ
    assert kept is not os.environ

    process_environment.restore({"SAME": "1", "OTHER": "there", "NEW": ""})
    assert os.environ == {"SAME": "1", "OTHER": "there", "NEW": ""}

    process_environment.restore(kept)
    assert os.environ == kept


def test_restore_does_not_set_equal_variables_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting one moves it away from where the process began, and with all of them moved `ps` shows no title."""
    written: list[str] = []

    class Written(dict[str, str]):
        def update(self, variables: dict[str, str]) -> None:  # type: ignore[override]
            written.extend(variables)
            super().update(variables)

    monkeypatch.setattr(os, "environ", Written({"SAME": "1", "OTHER": "here"}))
    process_environment.restore({"SAME": "1", "OTHER": "there", "NEW": "1"})

    assert written == ["OTHER", "NEW"]


@pytest.mark.parametrize("before", [{}, {"PYTHONPATH": "/operators"}])
def test_import_path_is_set_only_inside_the_context(monkeypatch: pytest.MonkeyPatch, before: dict[str, str]) -> None:
    monkeypatch.setattr(os, "environ", dict(before))

    with suppress(ValueError), process_environment.for_fork_server(["", "/here", "/there"], "/model"):
        assert os.environ["PYTHONPATH"] == "/here:/there", "empty is the folder in which it starts"
        assert process_environment.early_tokenizer() == "/model"
        raise ValueError("no server")

    assert os.environ == before


def test_compilations_file_is_beside_the_exit_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert process_environment.compilations_file() is None

    note = process_environment.set_exit_note_path()
    record = process_environment.compilations_file()
    assert record == note.with_suffix(".compilations"), "beside the note, with which the supervisor removes it"
