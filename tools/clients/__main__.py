"""`python -m tools.clients BASE_URL [NAME…]`: installs clients, runs their checks, prints a table."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tools.clients.catalogue import CLIENTS, Client, named
from tools.clients.environments import command, install, install_node, variables
from tools.clients.results import Result, as_json, from_json, lost, merged, read_checks, table

_SCRIPT_TIMEOUT_S = 900.0  # some 25 checks, each with time-outs of its own


def main() -> int:
    """Returns 1 if a check fails that was right in the run of `--before`, or if no client could be installed."""
    options = _options()
    before = _earlier(options.before) if options.before else {}
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = [_tried(client, folder.resolve(), options) for client in named(options.names)]
    if options.json:
        kept = _earlier(options.json) if options.json.exists() else {}
        options.json.write_text(json.dumps(as_json([*merged(kept, results)]), indent=1) + "\n")
    print(table(results, before))
    worse = list(lost(results, before))
    print(*(f"was right before: {line}" for line in worse), sep="\n")
    return 1 if worse else 0


def _earlier(file: Path) -> dict[str, Result]:
    return from_json(json.loads(file.read_text()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.clients", description=__doc__)
    parser.add_argument("base_url", help="of the service, without /v1: http://127.0.0.1:3000")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(client.name for client in CLIENTS))
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", help="the first of /v1/models, unless it is named")
    parser.add_argument("--folder", type=Path, help="keeps the environments there, for the next run")
    parser.add_argument("--json", type=Path, help="writes the results to this file; those of other clients in it stay")
    parser.add_argument("--before", type=Path, help="such a file of an earlier run, to compare with")
    options = parser.parse_args()
    options.base_url = options.base_url.rstrip("/")
    options.model = options.model or _first_model(options.base_url, options.api_key)
    return options


def _first_model(base_url: str, api_key: str) -> str:
    request = urllib.request.Request(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {api_key}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        return str(json.load(response)["data"][0]["id"])


def _tried(client: Client, folder: Path, options: argparse.Namespace) -> Result:
    print(f"== {client.name} ({client.version})", flush=True)
    own, node = folder / client.name, folder / "node"
    try:
        if client.on_node:
            install_node(node)
        install(client, own)
    except (OSError, subprocess.SubprocessError) as error:
        return Result(client.name, client.version, {"install": str(error)[:160]})
    output = _output(command(client, own, node), _environment(client, own, node, options), own)
    print(output, flush=True)
    return Result(client.name, client.version, read_checks(output))


def _environment(client: Client, own: Path, node: Path, options: argparse.Namespace) -> dict[str, str]:
    service = {"BASE_URL": options.base_url, "API_KEY": options.api_key, "MODEL": options.model}
    return {**variables(client, own, node), **service}


def _output(script: list[str], environment: dict[str, str], folder: Path) -> str:
    """What the script printed; what it wrote to stderr stays in a file of its folder."""
    with (folder / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            script, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
        try:
            return process.communicate(timeout=_SCRIPT_TIMEOUT_S)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0]


if __name__ == "__main__":
    sys.exit(main())
