"""An environment for each client: a virtual environment by uv, or a folder of npm's."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.clients.catalogue import NODE, SCRIPTS, Client

_ROOT = Path(__file__).parents[2]
_FETCH_TIMEOUT_S = 600.0
_HANDED_ON = ("PATH", "LANG", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
"""No other variable reaches a client, so that no key and no proxy of this machine's user does."""


def install(client: Client, folder: Path) -> None:
    """Installs a client's packages into an empty or earlier folder; an earlier one with the same packages stays.

    Raises:
        subprocess.SubprocessError: uv or npm failed, or took longer than ten minutes.
    """
    stamp, wanted = folder / "packages.txt", "\n".join(client.packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if client.on_node:
        _npm(folder, client.packages)
    else:
        _uv(folder, client.packages)
    stamp.write_text(wanted)


def install_node(folder: Path) -> None:
    """Installs Node.js, of which all clients for it share one."""
    if not (folder / "node_modules" / "node" / "bin" / "node").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _npm(folder, (NODE,))


def _npm(folder: Path, packages: Sequence[str]) -> None:
    _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *packages])


def _uv(folder: Path, packages: Sequence[str]) -> None:
    # UV_FIND_LINKS may name wheels that this machine keeps for the service; a client's are its own.
    python = folder / "bin" / "python"
    create = ["uv", "venv", "--quiet", "--clear", "--python", "3.11", str(folder)]
    fill = ["env", "-u", "UV_FIND_LINKS", "uv", "pip", "install", "--quiet", "--python", str(python), *packages]
    find = "source scripts/environment.sh; hand_over_pip_settings; PATH=$PATH:$PWD/.venv/bin"
    _run(["bash", "-c", f"{find}; {shlex.join(create)} && {shlex.join(fill)}"])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, cwd=_ROOT, timeout=_FETCH_TIMEOUT_S)


def command(client: Client, folder: Path, node: Path) -> list[str]:
    """What runs a client's script. Node.js looks for packages beside the script, so that it is copied to them."""
    if not client.on_node:
        return [str(folder / "bin" / "python"), str(SCRIPTS / client.script)]
    for name in (client.script, "checks.mjs"):
        shutil.copy(SCRIPTS / name, folder / name)
    return [str(node / "node_modules" / "node" / "bin" / "node"), str(folder / client.script)]


def variables(client: Client, folder: Path, node: Path) -> dict[str, str]:
    """What a client's script gets beside the service's address: little, and a home of its own."""
    handed_on = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    own = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    if client.on_node:
        handed_on["PATH"] = f"{node / 'node_modules' / 'node' / 'bin'}:{handed_on['PATH']}"
    return {**handed_on, **own, **client.variables}
