"""The walk over imports, on small packages: what always runs is followed, and what may not run is no fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imports import Sources, Walk

FACTS = {"TYPE_CHECKING": False, "is_cuda": True, "is_rocm": False}
Followed = Callable[..., Walk]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    """A walk from the module `app` on, whose files are given as `app__worker="…"` for app/worker.py."""

    def follow(app: str, **modules: str) -> Walk:
        for name, text in {"app____init__": app, **modules}.items():
            file = tmp_path.joinpath(*name.split("__", 1)).with_suffix(".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        walk = Walk(Sources([tmp_path], FACTS), {"app"})
        walk.follow("app")
        return walk

    return follow


@pytest.mark.parametrize(
    "text",
    [
        "import lib",
        "import lib.part as other",
        "from lib.part import name",
        "class Worker:\n    import lib",
        "def start():\n    import lib",
        "class Worker:\n    async def start(self):\n        from lib import name",
        "if platform.is_cuda():\n    import lib",
        "if not platform.is_rocm():\n    import lib",
        "if TYPE_CHECKING or platform.is_cuda():\n    import lib",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import lib",
        "with timed():\n    import lib",
        "for size in sizes:\n    import lib",
        "try:\n    import lib\nexcept ValueError:\n    pass",
        "try:\n    import lib\nfinally:\n    pass",
        "try:\n    pass\nexcept ImportError:\n    pass\nfinally:\n    import lib",
        "try:\n    import lib\nexcept ImportError as error:\n    log(error)\n    raise",
        "def start():\n    if unknown:\n        return\n    import lib",
    ],
)
def test_import_that_always_runs_is_needed(followed: Followed, text: str) -> None:
    assert [module.split(".")[0] for module in followed(text).needed] == ["lib"]


@pytest.mark.parametrize(
    "text",
    [
        "import os.path, sys\nfrom __future__ import annotations",
        "if unknown:\n    import lib\nelse:\n    import lib",
        "if TYPE_CHECKING:\n    import lib",
        "if typing.TYPE_CHECKING:\n    import lib",
        "if platform.is_rocm():\n    import lib",
        "if platform.is_cuda() and unknown(1):\n    import lib",
        "try:\n    import lib\nexcept ImportError:\n    lib = None",
        "try:\n    import lib\nexcept (AttributeError, ModuleNotFoundError):\n    lib = None",
        "try:\n    import lib\nexcept:\n    lib = None",
        "with suppress(ImportError):\n    import lib",
        "def start():\n    if not platform.is_rocm():\n        return\n    import lib",
        "def start():\n    with timed():\n        raise NotImplementedError\n    import lib",
        "def start():\n    def later():\n        import lib",
    ],
)
def test_import_that_may_not_run_is_not_needed(followed: Followed, text: str) -> None:
    assert not followed(text).needed


@pytest.mark.parametrize(
    "app",
    [
        "import app.worker",
        "from app import worker",
        "from . import worker",
        "from .worker import start",
        "def main():\n    from app.worker import start",
    ],
)
def test_module_of_a_followed_package_is_followed(followed: Followed, app: str) -> None:
    walk = followed(app, app__worker="import lib")

    assert [str(scope) for scope in walk.chain("lib")][-1] == "app.worker"


def test_package_of_a_module_is_imported_before_it(followed: Followed) -> None:
    walk = followed("import app.models.small", app__models="import lib")

    assert [str(scope) for scope in walk.chain("lib")] == ["app", "app.models"]
    assert list(walk.absent) == ["app.models.small"]


WORKER = """
class Base:
    def load(self):
        import lib

class Worker(Base):
    def __init__(self):
        self.load()

def start():
    Worker()

def stop():
    import other
"""


@pytest.mark.parametrize(
    "app",
    [
        "from app.worker import start\nstart()",
        "from app.worker import start as begin\nbegin(1)",
        "import app.worker\nresult = [app.worker.start()]",
        "from app import worker\nif worker.start():\n    pass",
        "from app.worker import Worker\nWorker()",
        "from app.worker import start\n@start()\ndef main(): ...",
        "from app.again import start\nstart()",
    ],
)
def test_function_that_is_called_is_followed(followed: Followed, app: str) -> None:
    walk = followed(app, app__worker=WORKER, app__again="from app.worker import start")

    assert list(walk.needed) == ["lib"]
    assert str(walk.chain("lib")[-1]) == "app.worker:Base.load()"


@pytest.mark.parametrize(
    "app",
    [
        "import app.worker",
        "from app.worker import start\nlater = lambda: start()",
        "from app import worker\nworker.load()",
    ],
)
def test_function_that_is_not_called_is_not_followed(followed: Followed, app: str) -> None:
    assert not followed(app, app__worker=WORKER).needed


def test_chain_is_a_shortest_one(followed: Followed) -> None:
    walk = followed("import app.a, app.b", app__a="import app.c", app__b="import lib", app__c="import lib")

    assert [str(scope) for scope in walk.chain("lib")] == ["app", "app.b"]


def test_names_that_lead_in_a_circle_end(followed: Followed) -> None:
    walk = followed(
        "from app.a import start\nstart()", app__a="from app.b import start", app__b="from app.a import start"
    )

    assert not walk.needed
