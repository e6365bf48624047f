from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gptoss_bento.bento import build
from gptoss_bento.errors import ConfigurationError, GptOssBentoError


class FakeBentoml:
    """A fake of the command; builds nothing."""

    def __init__(self, error: str = "") -> None:
        self.commands: list[list[str]] = []
        self._error = error

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        tag = f"__tag__:gptoss-bento:{command[command.index('--version') + 1]}\n"
        return subprocess.CompletedProcess(command, 1 if self._error else 0, tag, self._error)


@pytest.fixture
def bentoml(monkeypatch: pytest.MonkeyPatch) -> FakeBentoml:
    fake = FakeBentoml()
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


def test_profiles_get_a_bento_with_their_name_in_the_tag(bentoml: FakeBentoml) -> None:
    tags = list(build.build())

    names = [tag.removeprefix("gptoss-bento:").rpartition("-")[0] for tag in tags]
    assert names == ["demo", "gpt-oss-120b", "gpt-oss-20b"]
    assert bentoml.commands[0][4:6] == ["--arg", "profile=demo"]


def test_platform_is_passed_on_and_excludes_profiles_that_cannot_run_on_it(bentoml: FakeBentoml) -> None:
    assert len(list(build.build(platform="cpu"))) == 1
    assert "platform=cpu" in bentoml.commands[0]


@pytest.mark.parametrize(
    ("profiles", "platform", "words"),
    [
        (["dmeo"], None, "did you mean 'demo'"),
        (["demo", "gpt-oss-20b"], "cpu", "'cpu' is not possible"),
        (["/somewhere/mine.yaml"], None, "put the file into configs/"),
    ],
)
def test_build_that_is_impossible_is_refused_before_any_other(
    profiles: list[str], platform: str | None, words: str, bentoml: FakeBentoml
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build.build(profiles, platform)

    assert bentoml.commands == []


def test_installed_package_has_nothing_to_build_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"built from the repository"):
        build.build(source=tmp_path)


def test_build_passes_on_the_messages_of_bentoml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", FakeBentoml("Error: no space left").run)

    with pytest.raises(GptOssBentoError, match=r"build of demo failed:\nError: no space left"):
        list(build.build(["demo"]))
