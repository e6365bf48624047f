"""A PostgreSQL server for tests: started once a session, in a temporary folder, on a free port, without privileges."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gptoss_bento.bench.servers import free_port


def binaries() -> Path | None:
    """The folder with `initdb` and `postgres`: on the path, or Debian's newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return folders[-1] if folders else None


@contextmanager
def postgres(folder: Path, programs: Path) -> Iterator[str]:
    """Runs a server; gives the URL of its database `postgres`, to which `/name` of another can be put."""
    data, port = folder / "data", free_port()
    user = _unprivileged_user()
    data.mkdir()
    if user:
        _hand_over(folder, user)
    options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", f"--pgdata={data}"]
    subprocess.run([programs / "initdb", *options], check=True, capture_output=True, user=user)
    settings = {
        "fsync": "off",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), *words], stderr=subprocess.DEVNULL, user=user
    )
    try:
        _wait_until_ready(programs, port)
        yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(20)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _hand_over(folder: Path, user: str) -> None:
    for path in (folder, folder / "data"):
        shutil.chown(path, user)
    for parent in folder.parents:  # pytest makes its folders for their owner alone
        if "pytest" in parent.name:
            parent.chmod(parent.stat().st_mode | 0o011)


def _wait_until_ready(programs: Path, port: int) -> None:
    for _ in range(100):
        ready = subprocess.run(
            [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"], capture_output=True
        )
        if ready.returncode == 0:
            return
        subprocess.run(["sleep", "0.1"])
    raise TimeoutError("PostgreSQL did not start")
