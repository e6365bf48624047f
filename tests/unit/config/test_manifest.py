from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gptoss_bento.config import manifest
from gptoss_bento.config.manifest import File, Manifest, Source
from gptoss_bento.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_bytes(b"{}")
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"12345")
    return tmp_path


def test_source_names_every_file_with_its_hash(folder: Path) -> None:
    source = manifest.describe("a/b", folder / "model", folder, "main", "abc")

    digest = hashlib.sha256(b"12345").hexdigest()
    assert source.folder == "model"
    assert source.files[1] == File("sub/weights", 5, digest)
    assert (source.asked, source.commit) == ("main", "abc")


def test_manifest_is_read_as_written_also_after_a_move(folder: Path, tmp_path: Path) -> None:
    written = Manifest((manifest.describe("a/b", folder / "model", folder, None, "abc"),), "huggingface")
    written.write(folder)
    moved = folder.rename(tmp_path.parent / f"{tmp_path.name}-moved")

    read = manifest.read(moved)

    assert read == written
    assert read.models == ("a/b",)
    assert read.hub_home(moved) == moved / "huggingface"
    assert list(manifest.problems(read, moved)) == []


def test_manifest_keeps_absolute_paths_of_files_elsewhere(folder: Path) -> None:
    assert manifest.relative(Path("/models/x"), folder) == "/models/x"
    source = Source("a/b", "x", (), commit="abc")
    assert Manifest((source,), "/models").hub_home(folder) == Path("/models")


def test_manifest_without_models_of_the_hub_has_no_cache(folder: Path) -> None:
    assert Manifest((Source("demo", "model", ()),), "huggingface").hub_home(folder) is None


def test_manifest_that_is_missing_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert manifest.read(tmp_path) is None
    assert manifest.read(tmp_path / "nothing") is None
    for text in ("{", "[]", '{"sources": [{"name": "x"}], "hub": null}'):
        (tmp_path / manifest.NAME).write_text(text)
        with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
            manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(b"1234", "has 4 bytes, expected 5"), (b"12346", "has the SHA-256"), (None, "is missing")],
)
def test_damage_of_every_kind_is_found(damage: bytes | None, words: str, folder: Path) -> None:
    written = Manifest((manifest.describe("a/b", folder / "model", folder),))
    path = folder / "model" / "sub" / "weights"
    path.unlink() if damage is None else path.write_bytes(damage)

    (problem,) = manifest.problems(written, folder)

    assert problem.startswith(str(path))
    assert words in problem


def test_hash_of_a_small_file_is_gits(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello\n")

    assert (
        manifest.git_blob(tmp_path / "x") == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # echo hello | git hash-object --stdin
