from __future__ import annotations

import atexit
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import psutil
import pytest

from gptoss_bento.config import process_environment
from gptoss_bento.errors import (
    AddressInUseError,
    ArtifactError,
    ConfigurationError,
    EngineDiedError,
    EngineStartError,
    GptOssBentoError,
    HardwareError,
    MachineError,
    WorkerDiedError,
)
from gptoss_bento.workers import supervisor
from gptoss_bento.workers.supervisor import ExitNote
from gptoss_bento.workers.worker_group import WorkerGroup
from tests.fakes import Calls
from tests.waiting import HANG_S
from tools.full_disk import small_file_system

# Exit note

IMPORTS = (
    "from gptoss_bento import errors; from gptoss_bento.config import process_environment; "
    "from gptoss_bento.workers import supervisor"
)


def test_a_note_says_code_and_cause(tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.reserve()
    assert note.read() is None
    note.write(EngineStartError("vLLM did not start"))

    assert note.read() == (70, "vLLM did not start")


def test_without_a_note_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert ExitNote(tmp_path / "note.json").read() is None


def test_the_first_cause_stays(tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.write(ConfigurationError("the cause"))
    note.write(EngineDiedError("its consequence"))

    assert note.read() == (78, "the cause")


def test_a_note_that_is_cut_off_is_no_note(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text('{"exit_code": 70, "cau')

    assert ExitNote(path).read() is None


@pytest.mark.parametrize("cause", ["vLLM did not start", "\0" * 100_000], ids=["short", "long"])
def test_a_note_can_be_written_when_the_disk_is_full(tmp_path: Path, cause: str) -> None:
    note = ExitNote(tmp_path / "note.json")
    with small_file_system(tmp_path) as disk:
        note.reserve()
        disk.fill(os.getpid())
        note.write(MachineError(cause))
        said = note.read()

    assert said is not None
    assert said[0] == 74
    assert cause.startswith(said[1])


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigurationError, 78),
        (HardwareError, 78),
        (ArtifactError, 69),
        (AddressInUseError, 71),
        (EngineStartError, 70),
        (EngineDiedError, 75),
        (WorkerDiedError, 75),
        (MachineError, 74),
        (GptOssBentoError, 1),
    ],
)
def test_each_error_has_its_exit_code(error: type[GptOssBentoError], exit_code: int, tmp_path: Path) -> None:
    note = ExitNote(tmp_path / "note.json")
    note.write(error("cause"))

    assert note.read() == (exit_code, "cause")


# The supervisor, as real processes


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


def test_the_supervisor_exits_with_the_code_and_cause_that_a_worker_noted(tmp_path: Path) -> None:
    worker = (
        f"{IMPORTS}; supervisor.supervise(); "
        "supervisor.ExitNote(process_environment.exit_note_path()).write(errors.EngineStartError('no memory'))"
    )
    ended = run(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}], check=True)", tmp_path)

    assert ended.returncode == 70
    assert ended.stderr == "gptoss-bento: stopped (exit code 70): no memory\n"
    assert list(tmp_path.iterdir()) == []


def test_a_supervisor_without_a_note_exits_as_it_would(tmp_path: Path) -> None:
    ended = run("import sys; print('bye'); sys.exit(3)", tmp_path)

    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "bye\n", "")


def test_the_folder_for_metrics_goes_with_the_supervisor(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    script = "supervisor.supervise(lambda folder: (folder.mkdir(exist_ok=True), print(folder)))"
    clean = "import os; os.environ.pop('GPTOSS_BENTO_EXIT_NOTE');"
    own = run(f"{clean} {script}", tmp_path)
    said = run(f"{clean} os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path / 'mine')!r}; {script}", tmp_path)

    assert Path(own.stdout.strip()).parent == tmp_path
    assert said.stdout.strip() == str(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "what the operator chose stays"


def test_the_supervisor_leaves_nothing_of_what_its_workers_counted(tmp_path: Path) -> None:
    ended = run("supervisor.limits_file().touch(); assert supervisor.limits_file().exists()", tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_line_and_its_own_exit_code(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run(f"import socket; socket.socket().bind(('127.0.0.1', {taken.getsockname()[1]}))", tmp_path)

    assert ended.returncode == 71
    assert ended.stderr.splitlines() == [
        "gptoss-bento: stopped (exit code 71): The port is in use by another process. Choose another one with --port."
    ]


# The supervisor's excepthook


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Keeps the exit codes instead of ending the process."""
    calls = Calls()
    monkeypatch.setattr(os, "_exit", calls)
    return calls


def test_an_error_of_ours_ends_the_supervisor_in_one_line(exits: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    default = Calls()
    error = ConfigurationError("There is no profile 'x'.")

    supervisor._explain(default)(type(error), error, None)

    assert exits.made == [(78,)]
    assert default.made == []
    assert capsys.readouterr().err == "gptoss-bento: stopped (exit code 78): There is no profile 'x'.\n"


@pytest.mark.usefixtures("exits")
def test_a_start_that_fails_leaves_nothing_of_the_service(note_path: Path) -> None:
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
def test_other_errors_keep_their_traceback(error: BaseException, exits: Calls) -> None:
    default = Calls()

    supervisor._explain(default)(type(error), error, None)

    assert exits.made == []
    assert default.made == [(type(error), error, None)]


# A worker's life


@pytest.fixture
def note_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process is a worker of a supervisor."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return process_environment.set_exit_note_path()


@pytest.fixture
def no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})


@pytest.fixture(autouse=True)
def prctl(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for the system call, which would otherwise apply to pytest."""
    calls = Calls(0)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(prctl=calls))
    return calls


@pytest.mark.usefixtures("note_path")
def test_a_worker_ends_with_its_supervisor(prctl: Calls) -> None:
    supervisor.enter_worker(WorkerGroup())

    assert prctl.made == [(1, signal.SIGTERM)]  # PR_SET_PDEATHSIG


@pytest.mark.usefixtures("note_path")
def test_a_worker_that_was_killed_is_not_started_again() -> None:
    supervisor.enter_worker(WorkerGroup())

    with pytest.raises(WorkerDiedError, match="died without a word"):
        supervisor.enter_worker(WorkerGroup())


@pytest.mark.usefixtures("note_path")
def test_a_worker_that_ended_as_it_should_may_start_again(tmp_path: Path) -> None:
    supervisor.enter_worker(WorkerGroup())
    supervisor.leave_worker(WorkerGroup())
    assert list(tmp_path.iterdir()) == []

    supervisor.enter_worker(WorkerGroup())

    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("note_path")
def test_leaving_twice_is_no_error(tmp_path: Path) -> None:
    supervisor.leave_worker(WorkerGroup())

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_supervisor")
def test_without_a_supervisor_a_worker_may_start_as_often_as_it_likes(prctl: Calls) -> None:
    supervisor.enter_worker(WorkerGroup())
    supervisor.enter_worker(WorkerGroup())
    supervisor.leave_worker(WorkerGroup())

    assert len(prctl.made) == 2


def test_supervising_in_a_worker_changes_nothing(note_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register = Calls()
    monkeypatch.setattr(atexit, "register", register)
    hook = sys.excepthook

    supervisor.supervise()

    assert register.made == []
    assert sys.excepthook is hook
    assert process_environment.exit_note_path() == note_path


# Ending the service


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(os, "kill", calls)
    return calls


def test_a_worker_notes_the_cause_and_asks_the_supervisor_to_end(note_path: Path, kill: Calls) -> None:
    supervisor.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getppid(), signal.SIGTERM)]
    assert json.loads(note_path.read_text()) == {"exit_code": 70, "cause": "cause"}


def test_where_no_cause_can_be_noted_the_service_ends_all_the_same(
    note_path: Path, kill: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    note_path.mkdir()
    supervisor.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getppid(), signal.SIGTERM)]
    assert caplog.messages == ["cause", "the exit code will be 0 instead of 70"]


def test_a_worker_reads_what_another_one_noted(note_path: Path) -> None:
    assert supervisor.noted_cause() is None
    ExitNote(note_path).write(EngineStartError("cause"))
    assert supervisor.noted_cause() == "cause"


@pytest.mark.usefixtures("no_supervisor")
def test_without_a_supervisor_the_process_ends_itself(
    kill: Calls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor.stop_service(EngineStartError("cause"))

    assert kill.made == [(os.getpid(), signal.SIGTERM)]
    assert caplog.messages == ["cause"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def signals() -> Iterator[None]:
    """Puts the handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("drain_s", "limit_s"), [(0.0, 8.0), (2.0, 8.0), (5.0, 8.0), (60.0, 63.0)])
def test_a_signal_starts_the_countdown_and_tells_us(
    number: signal.Signals, drain_s: float, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_down, on_stop, behind = Calls(), Calls(drain_s), Calls()
    monkeypatch.setattr(supervisor, "_count_down", count_down)
    signal.signal(number, behind)

    supervisor.handle_stop_signals(on_stop, WorkerGroup())
    signal.raise_signal(number)

    assert [made[0] for made in count_down.made] == [limit_s]
    assert behind.made == [], "uvicorn goes on until it is told"
    ((seen, end),) = on_stop.made
    assert seen == number
    end()
    assert [seen for seen, _ in behind.made] == [number]


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("behind", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_without_a_handler_behind_is_no_error(
    behind: signal.Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_stop = Calls(0.0)
    monkeypatch.setattr(supervisor, "_count_down", Calls())
    signal.signal(signal.SIGTERM, behind)

    supervisor.handle_stop_signals(on_stop, WorkerGroup())
    signal.raise_signal(signal.SIGTERM)

    ((_, end),) = on_stop.made
    end()


# A worker that hangs, with a child that ignores SIGTERM, as a loading engine does.
HANGING = """
import signal, subprocess, sys, time
from gptoss_bento.workers import supervisor
from gptoss_bento.workers.worker_group import WorkerGroup
supervisor.SHUTDOWN_LIMIT_S = 0.1
child = subprocess.Popen(["sh", "-c", "trap '' TERM; echo up; exec sleep 60"], stdout=subprocess.PIPE)
child.stdout.readline()
supervisor.handle_stop_signals(lambda number, end: 0, WorkerGroup())
print(child.pid, flush=True)
signal.raise_signal(signal.SIGTERM)
time.sleep(60)
"""


def test_a_worker_that_hangs_is_ended_with_its_children() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=HANG_S)

    assert ended.returncode == 0, ended.stderr
    assert not psutil.pid_exists(int(ended.stdout)) or psutil.Process(int(ended.stdout)).status() == "zombie"


# Several workers


def test_only_the_serve_command_is_a_supervisor() -> None:
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


def test_workers_find_their_place_in_the_group_that_the_supervisor_made(note_path: Path) -> None:
    supervisor.create_worker_group(3)
    groups = [supervisor.own_worker_group(number) for number in (1, 2, 3)]

    assert [(group.index, group.count) for group in groups] == [(0, 3), (1, 3), (2, 3)]
    groups[2].tell_jobs(4)
    assert groups[0].jobs == 4, "they share a board"
    assert groups[1].own_socket("x") == note_path.with_suffix("") / "x-1"


def test_a_single_worker_shares_nothing(note_path: Path) -> None:
    supervisor.create_worker_group(1)

    assert supervisor.own_worker_group(1).is_alone
    assert list(note_path.parent.iterdir()) == []


def test_of_several_workers_each_has_a_mark_of_its_own(note_path: Path) -> None:
    supervisor.create_worker_group(2)
    groups = [supervisor.own_worker_group(number) for number in (1, 2)]
    for group in groups:
        supervisor.enter_worker(group)
    with pytest.raises(WorkerDiedError):
        supervisor.enter_worker(groups[1])
    for group in groups:
        supervisor.leave_worker(group)

    assert list(note_path.parent.iterdir()) == []


# A supervisor whose worker is killed: it leaves the mark, the folder and a process that would go on for ever.
KILLED = """
import subprocess, sys, time
supervisor.create_worker_group(2)
leaves = "import subprocess, os, signal; subprocess.Popen(['sleep', '300']); os.kill(os.getpid(), signal.SIGKILL)"
worker = (
    "from gptoss_bento.workers import supervisor; supervisor.enter_worker(supervisor.own_worker_group(2)); " + leaves
)
subprocess.run([sys.executable, "-c", worker])
import psutil
print([child.pid for child in psutil.Process().children()][0])
"""


def test_a_supervisor_removes_what_a_killed_worker_left(tmp_path: Path) -> None:
    import_in_serve = (
        "import click\ncontext = click.Context(click.Command('serve'), info_name='serve')\ncontext.__enter__()\n"
    )
    ended = run(KILLED, tmp_path, import_in_serve)

    assert ended.returncode == 0, ended.stderr
    assert not psutil.pid_exists(int(ended.stdout)) or psutil.Process(int(ended.stdout)).status() == "zombie"
    assert list(tmp_path.iterdir()) == []
