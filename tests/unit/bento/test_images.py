from __future__ import annotations

import re
from pathlib import Path

import pytest

from gptoss_bento.bento import images
from gptoss_bento.bento.images import Platform, choose_platform, image
from gptoss_bento.config.profile import load_profile
from gptoss_bento.doctor.surroundings import BENTOML_FOLDERS
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.paths import PACKAGE
from tests.server import REPOSITORY

# BentoML loads its image class at first use, and with it code that pathspec and pydantic call deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("profile", "said", "chosen"),
    [
        ("demo", None, "cpu"),
        ("demo", "cuda", "cuda"),
        ("gpt-oss-20b", None, "cuda"),
        ("gpt-oss-20b", "rocm", "rocm"),
        ("gpt-oss-120b", "rocm", "rocm"),
    ],
)
def test_platform_is_the_one_asked_for_or_what_the_profile_needs(profile: str, said: str, chosen: str) -> None:
    assert choose_platform(load_profile(profile), said) == chosen


def test_bento_without_profile_is_built_for_cuda() -> None:
    assert choose_platform(None, None) is Platform.CUDA


def test_platform_on_which_the_profile_cannot_run_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'cpu' is not possible for profile 'gpt-oss-20b'; possible: cuda, rocm"
    ):
        choose_platform(load_profile("gpt-oss-20b"), "cpu")


@pytest.mark.parametrize("platform", list(Platform))
def test_image_installs_the_whole_lock_of_its_platform_and_nothing_beside_it(platform: Platform) -> None:
    made = image(platform)

    assert made.python_requirements == (REPOSITORY / "requirements" / f"{platform}.txt").read_text()
    assert not made.lock_python_packages  # it is one already
    assert "no-deps = true" in "\n".join(made.commands)


@pytest.mark.parametrize("platform", [Platform.CPU, Platform.ROCM])
def test_compiler_is_not_installed_where_none_is_needed_at_run_time(platform: Platform) -> None:
    assert not re.search(r"build-essential|gcc|g\+\+|git", "\n".join(image(platform).commands))


@pytest.mark.parametrize("platform", list(Platform))
def test_commands_can_all_follow_run(platform: Platform) -> None:
    made = image(platform)

    for command in [*made.commands, *made.post_commands]:
        assert not command.startswith(("RUN", "#", " "))
        assert "{uv}" not in command
    version = re.search(r"^uv==(\S+)", made.python_requirements, re.MULTILINE)
    assert version is not None
    assert version[1] in made.commands[0]


def test_images_carry_a_health_check_and_take_a_model_as_build_arguments() -> None:
    serving = image(Platform.CPU).post_commands[-1]

    for name in ("MODEL_NAME", "MODEL_REVISION", "TOKENIZER_NAME", "TOKENIZER_REVISION", "BASE_PATH", "QUANTIZATION"):
        assert f"\nARG {name}\n" in serving
        assert f"{name}=${name}" in serving
    assert "\nHEALTHCHECK " in serving
    assert "ARG HF_TOKEN" not in serving
    assert "--mount=type=secret,id=HF_TOKEN" in serving


def test_lock_without_uv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text("torch==1\n")

    with pytest.raises(ConfigurationError, match=r"cpu\.txt names no version of uv"):
        images._uv_version(tmp_path / "cpu.txt")


def test_folders_written_at_run_time_belong_to_group_0_and_are_group_writable() -> None:
    """OpenShift: any uid, in group 0. What BentoML makes in its home is there, so that it need not be writable."""
    text = (PACKAGE / "bento" / "docker" / "serve.dockerfile").read_text()

    made = re.search(r"install -d -o bentoml -g 0 -m 775 ((?:/\S+|\\|\s)+)\n(?:COPY|RUN)", text)
    assert made
    folders = set(made[1].replace("\\", " ").split())
    assert folders >= {"/home/bentoml", "/home/bentoml/.cache", "/opt/gptoss-bento", "/opt/gptoss-bento/jobs"}
    assert folders >= {f"/home/bentoml/{name}" for name in BENTOML_FOLDERS}
    assert text.index("gptoss-bento bake") < text.index("ENV XDG_CACHE_HOME=/home/bentoml/.cache")
