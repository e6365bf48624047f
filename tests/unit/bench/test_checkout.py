from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gptoss_bento.bench.checkout import Checkout, differences, missing_files
from gptoss_bento.errors import BenchmarkError
from tests.server import REPOSITORY

# Another version of the command: it prints where it runs and its arguments.
COMMAND = """
import json, os, sys
print(json.dumps({"words": sys.argv[1:], "file": __file__, "folder": os.getcwd(), "profile": os.environ["PROFILE"]}))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Another checkout, as far as it is looked at."""
    folder = tmp_path.resolve() / "older"
    package = folder / "src" / "gptoss_bento"
    (package / "bench").mkdir(parents=True)
    (folder / "service.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(COMMAND)
    (package / "bench" / "instant_executor.py").touch()
    return Checkout(folder)


def test_checkout_has_the_files_that_are_needed(checkout: Checkout) -> None:
    assert missing_files(checkout.folder) == []
    assert missing_files(REPOSITORY) == []


def test_checkout_without_the_executor_cannot_be_served(checkout: Checkout) -> None:
    (checkout.folder / "src/gptoss_bento/bench/instant_executor.py").unlink()

    assert missing_files(checkout.folder) == ["src/gptoss_bento/bench/instant_executor.py"]
    assert missing_files(checkout.folder / "missing")[0] == "service.py"


def test_checkout_has_the_name_of_its_folder() -> None:
    assert Checkout(Path("/there/gptoss-bento")).server == "checkout gptoss-bento"
    assert str(Checkout(Path("/there/gptoss-bento"))) == "/there/gptoss-bento"


def test_checkout_imports_its_own_modules_first(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))

    assert checkout.variables == {
        "PYTHONPATH": os.pathsep.join((str(checkout.folder / "src"), str(REPOSITORY / "src")))
    }
    assert checkout.plan({"PROFILE": "demo"}) == {
        "words": ["plan", "--json"],
        "file": str(checkout.folder / "src/gptoss_bento/__main__.py"),
        "folder": str(checkout.folder),
        "profile": "demo",
    }


def test_checkout_that_refuses_the_variables_says_why(checkout: Checkout) -> None:
    (checkout.folder / "src/gptoss_bento/__main__.py").write_text("import sys; sys.exit('MAX_NUM_SEQS is unknown')")

    with pytest.raises(BenchmarkError, match=r"older: its `gptoss-bento plan --json` ended with 1: MAX_NUM_SEQS is un"):
        checkout.plan({})


def test_plan_of_this_checkout_can_be_compared() -> None:
    plan = Checkout(REPOSITORY).plan({"PROFILE": "demo", "MAX_NUM_SEQS": "7"})
    other = json.loads(json.dumps(plan))
    other["arguments"]["max_num_seqs"]["value"] = 9

    assert differences(plan, plan) == []
    assert differences(plan, other) == ["max_num_seqs is 7 here and 9 there"]


def plan(arguments: dict[str, object], **variables: str) -> dict[str, object]:
    """A plan as JSON, with origins that do not matter."""
    return {
        "model": {"value": "demo", "origin": "profile"},
        "arguments": {name: {"value": value, "origin": str(value)} for name, value in arguments.items()},
        "environment": {name: {"value": value, "origin": value} for name, value in variables.items()},
    }


def test_plans_differ_in_what_one_of_them_lacks() -> None:
    found = differences(plan({"seed": 1, "dtype": "float32"}, CHUNK="8"), plan({"dtype": "float32"}, CHUNK="9"))

    assert found == ["seed is 1 here and not planned there", 'CHUNK is "8" here and "9" there']


def test_plans_with_a_warm_up_on_one_side_differ() -> None:
    warm = plan({}) | {"warmup": {"value": True, "origin": "default"}}

    assert differences(plan({}), warm) == ["warmup is not planned here and true there"]
