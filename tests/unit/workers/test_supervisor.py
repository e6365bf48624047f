from __future__ import annotations

import atexit
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import click
import psutil
import pytest

from gptoss_bento.config import process_environment
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.workers import supervisor
from tests.fakes import Calls
from tests.waiting import HANG_S

IMPORTS = (
    "from gptoss_bento import errors; from gptoss_bento.config import process_environment; "
    "from gptoss_bento.workers import exit_note, supervisor, worker_process"
)


def run(script: str, folder: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Runs Python code as the supervisor of a service, with `folder` for its temporary files."""
    package = Path(supervisor.__file__).parents[2]
    variables = {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "PYTHONPATH": str(package)}
    preamble = f"{IMPORTS}\nsupervisor.supervise()\n"
    return subprocess.run(
        [sys.executable, "-c", before + preamble + script],
        env=variables,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


def test_supervisor_exits_with_the_code_and_cause_that_a_worker_noted(tmp_path: Path) -> None:
    worker = (
        f"{IMPORTS}; supervisor.supervise(); "
        "exit_note.ExitNote(process_environment.exit_note_path()).write(errors.EngineStartError('no memory'))"
    )
    ended = run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}], check=True)", tmp_path)

    assert ended.returncode == 70
    assert ended.stderr == "gptoss-bento: stopped (exit code 70): no memory\n"
    assert list(tmp_path.iterdir()) == []


def test_supervisor_without_a_note_exits_as_it_would(tmp_path: Path) -> None:
    ended = run("import sys; print('bye'); sys.exit(3)", tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "bye\n", "")


def test_folder_for_metrics_goes_with_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    script = "supervisor.supervise(lambda folder: (folder.mkdir(exist_ok=True), print(folder)))"
    clean = "import os; os.environ.pop('GPTOSS_BENTO_EXIT_NOTE');"
    own = run(f"{clean} {script}", tmp_path)
    said = run(f"{clean} os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path / 'mine')!r}; {script}", tmp_path)

    assert Path(own.stdout.strip()).parent == tmp_path
    assert said.stdout.strip() == str(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "what the operator chose stays"


def test_supervisor_leaves_nothing_of_what_its_workers_counted(tmp_path: Path) -> None:
    ended = run("worker_process.limits_file().touch(); assert worker_process.limits_file().exists()", tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_one_line_and_its_own_exit_code(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run(f"import socket; socket.socket().bind(('127.0.0.1', {taken.getsockname()[1]}))", tmp_path)

    assert ended.returncode == 71
    assert ended.stderr.splitlines() == [
        "gptoss-bento: stopped (exit code 71): The port is in use by another process. Choose another one with --port."
    ]


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Keeps the exit codes instead of ending the process."""
    calls = Calls()
    monkeypatch.setattr(os, "_exit", calls)
    return calls


def test_error_of_ours_ends_the_supervisor_in_one_line(exits: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    default = Calls()
    error = ConfigurationError("There is no profile 'x'.")

    supervisor._explain(default)(type(error), error, None)

    assert exits.made == [(78,)]
    assert default.made == []
    assert capsys.readouterr().err == "gptoss-bento: stopped (exit code 78): There is no profile 'x'.\n"


@pytest.mark.usefixtures("exits")
def test_start_that_fails_leaves_nothing_of_the_service(note_path: Path) -> None:
    ours = [note_path.with_suffix(suffix) for suffix in ("", ".metrics", ".limits")]
    ours[0].mkdir()
    ours[1].mkdir()
    (ours[1] / "counter_1.db").touch()
    ours[2].touch()
    another = note_path.with_name("gptoss-bento-another.metrics")
    another.mkdir()

    supervisor._explain(Calls())(OSError, OSError(errno.EADDRINUSE, "in use"), None)

    assert [path for path in (*ours, another) if path.exists()] == [another]


@pytest.mark.parametrize("error", [ValueError("x"), OSError(2, "no such file"), KeyboardInterrupt()])
def test_errors_of_other_kinds_keep_their_traceback(error: BaseException, exits: Calls) -> None:
    default = Calls()

    supervisor._explain(default)(type(error), error, None)

    assert exits.made == []
    assert default.made == [(type(error), error, None)]


def test_supervisor_in_a_worker_changes_nothing(note_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register = Calls()
    monkeypatch.setattr(atexit, "register", register)
    hook = sys.excepthook

    supervisor.supervise()

    assert register.made == []
    assert sys.excepthook is hook
    assert process_environment.exit_note_path() == note_path


def test_supervisor_is_the_serve_command_alone() -> None:
    assert not supervisor.is_serving()
    for name, serving in [("serve", True), ("serve-http", True), ("build", False), ("deploy", False)]:
        with click.Context(click.Command(name), info_name=name):
            assert supervisor.is_serving() is serving


@pytest.mark.parametrize("reload", [False, True])
def test_workers_that_are_started_again_one_by_one_share_nothing(reload: bool) -> None:
    assert not supervisor.may_start_several()
    with click.Context(click.Command("serve"), info_name="serve") as context:
        context.params["reload"] = reload
        assert supervisor.may_start_several() is not reload


# A supervisor whose worker is killed: it leaves the mark, the folder and a process that would go on for ever.
KILLED = """
import subprocess, sys, time
supervisor.create_worker_group(2)
leaves = "import subprocess, os, signal; subprocess.Popen(['sleep', '300']); os.kill(os.getpid(), signal.SIGKILL)"
worker = (
    "from gptoss_bento.workers.worker_process import enter_worker, own_worker_group; "
    "enter_worker(own_worker_group(2)); " + leaves
)
subprocess.run([sys.executable, "-c", worker])
import psutil
print([child.pid for child in psutil.Process().children()][0])
"""


def test_supervisor_removes_what_a_killed_worker_left(tmp_path: Path) -> None:
    import_in_serve = (
        "import click\ncontext = click.Context(click.Command('serve'), info_name='serve')\ncontext.__enter__()\n"
    )
    ended = run(KILLED, tmp_path, import_in_serve)

    assert ended.returncode == 0, ended.stderr
    assert not psutil.pid_exists(int(ended.stdout)) or psutil.Process(int(ended.stdout)).status() == "zombie"
    assert list(tmp_path.iterdir()) == []
