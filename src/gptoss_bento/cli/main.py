"""`gptoss-bento`: what an operator types beside `bentoml`.

`plan` answers immediately, so nothing heavy is imported up here: not BentoML, not what talks to servers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gptoss_bento.cli import bench
from gptoss_bento.cli.planning import ProfileOption, chosen_name, console, job_store, plan_here, prepare_planned
from gptoss_bento.config import environment, process_environment
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import AUTOMATIC, load_profile
from gptoss_bento.errors import ArtifactError, ConfigurationError, GptOssBentoError
from gptoss_bento.paths import PACKAGE
from gptoss_bento.planning import report as plan_report
from gptoss_bento.planning import tools
from gptoss_bento.tools.python import confinement

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(bench.app, name="bench")


@app.callback()
def main() -> None:
    """Plans, prepares and measures gptoss-bento. The service itself is started with `bentoml serve`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "httpx2"):  # the hub's library has moved on to the second
        logging.getLogger(library).setLevel(logging.WARNING)


@app.command()
def plan(
    profile: ProfileOption = None,
    gpu: Annotated[
        str | None, typer.Option(help="Plan for this card instead of those found here: h100, or h100x2 for two.")
    ] = None,
    goal: Annotated[Goal | None, typer.Option(help="What to tune for; the variable GOAL otherwise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, also for a refusal.")] = False,
) -> None:
    """Prints what would be served here, where each value comes from, and how memory would be split."""
    try:
        settings, planned = plan_here(profile, gpu, goal)
        planned = planned if gpu else tools.settled(planned, settings, confinement.problem())
    except GptOssBentoError as error:
        if as_json:
            _print_json({"refused": str(error)})
        raise
    store = job_store(profile, settings)
    if as_json:
        _print_json({**plan_report.as_json(planned), "job_store": asdict(store)})
    else:
        plan_report.print_plan(planned, console, job_store=store)


@app.command()
def prepare(profile: ProfileOption = None) -> None:
    """Fetches and verifies what the service needs: weights, tokenizer, Harmony vocabulary."""
    settings, planned = plan_here(profile)
    found = prepare_planned(settings, planned)
    console.print(f"model       {found.model}\nvocabulary  {found.vocabulary_dir}", soft_wrap=True)


@app.command()
def build(
    profiles: Annotated[list[str] | None, typer.Argument(help="Profiles of configs/; all, if none is given.")] = None,
    platform: Annotated[
        str | None, typer.Option(help="What the image is for: cpu, cuda or rocm. Default: what the profile needs.")
    ] = None,
) -> None:
    """Builds a Bento for each profile and prints its tag, for `bentoml serve TAG` and `bentoml containerize TAG`."""
    from gptoss_bento.bento import build as building

    for tag in building.build(profiles or (), platform):
        console.print(tag, soft_wrap=True)


@app.command()
def bake(profile: ProfileOption = None) -> None:
    """Fills GPTOSS_BENTO_CACHE with all that a start without network needs, verified, and writes a manifest.

    The model is what MODEL_NAME names; without it, only what comes with this package. An image is baked like this.
    """
    from gptoss_bento.bento import bake as baking

    settings = environment.load_settings()
    chosen = chosen_name(profile, settings)
    home = process_environment.choose_baking_home(settings)
    baked = baking.bake(settings, None if chosen == AUTOMATIC else load_profile(chosen), home)
    for source in baked.sources:
        size = sum(file.bytes for file in source.files) / 1e9
        console.print(f"{source.name}  {source.commit or ''}  {len(source.files)} files, {size:.3f} GB", soft_wrap=True)


@app.command()
def verify() -> None:
    """Compares every file of a baked folder (GPTOSS_BENTO_CACHE) with its manifest. Ends with 69 if one differs."""
    from gptoss_bento.config import manifest

    folder = environment.cache_dir()
    baked = manifest.read(folder)
    if baked is None:
        raise ConfigurationError(f"{folder} has no {manifest.NAME}; `gptoss-bento bake` writes one.")
    if wrong := list(manifest.problems(baked, folder)):
        raise ArtifactError("\n".join(wrong))
    console.print(f"{sum(len(source.files) for source in baked.sources)} files are as the manifest says")


@app.command()
def warm_caches(
    profile: ProfileOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Pack the folder into this file, .tar.gz or .tar, for an image or a volume.")
    ] = None,
    unpack: Annotated[
        Path | None, typer.Option(help="Fill the folder from such a file instead; it holds code, so trust it.")
    ] = None,
) -> None:
    """Fills KERNEL_CACHE_DIR on a GPU of the kind: starts the engine once, as the service would, and ends it.

    A start with a filled folder compiles next to nothing. The folder serves one kind of card, one set of versions and
    arguments, at one path; `plan` says whether it has what a plan needs.
    """
    from gptoss_bento.cli import kernels

    if unpack:
        kernels.unpack(unpack, environment.load_settings())
    else:
        kernels.warm(*plan_here(profile), output)


@app.command()
def doctor(
    profile: ProfileOption = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to bind, if not PORT's or 3000.", min=1, max=65535, envvar="BENTOML_PORT"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask neither the hub nor tool servers.")] = False,
    search: Annotated[
        bool, typer.Option("--search", help="Send the backend of SEARCH_BACKEND one search, which it may charge.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer from the network.", min=0.1)] = 1.0,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Checks all that would keep the service from starting or serving well, with a remedy for each finding.

    Ends with 0 if nothing is wrong, 1 if there are warnings, else with the exit code the service would stop with.
    """
    from gptoss_bento.doctor import examination, finding, report

    request = examination.Request(profile, port, not offline, timeout, search)
    found = asyncio.run(examination.examine(request))
    if json_output:
        typer.echo(json.dumps(report.as_json(found), indent=2, ensure_ascii=False))
    else:
        console.print(report.as_table(found))
    raise typer.Exit(finding.exit_code(found))


@app.command()
def schema(
    hub: Annotated[bool, typer.Option("--hub", help="As the form of RunPod's hub.")] = False,
    fill: Annotated[Path | None, typer.Option(help="Renews the generated tables of this document instead.")] = None,
) -> None:
    """Prints all settings as JSON Schema, for forms."""
    from gptoss_bento.config import reference

    if fill:
        fill.write_text(reference.fill(fill.read_text()))
        return
    _print_json(reference.hub_form() if hub else reference.json_schema())


@app.command(hidden=True)
def record_options() -> None:
    """Writes what the installed vLLM says of its options into the package. For developers, after an upgrade."""
    from gptoss_bento.engine import vllm_parser

    lines = ",\n".join(json.dumps(row) for row in vllm_parser.describe_options())
    (PACKAGE / "config" / "vllm_options.json").write_text(f"[\n{lines}\n]\n")
    recorded = {
        "vllm_variables.json": vllm_parser.describe_variables(),
        "vllm_unhashed_variables.json": vllm_parser.describe_unhashed_variables(),
        "vllm_parsers.json": vllm_parser.describe_parsers(),
    }
    for name, content in recorded.items():
        (PACKAGE / "config" / name).write_text(f"{json.dumps(content, indent=0)}\n")


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def run() -> None:
    """The console script: our errors become one line and their exit code."""
    try:
        app()
    except GptOssBentoError as error:
        print(f"gptoss-bento: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("gptoss_bento.bench"):
            raise
        print("gptoss-bento: a Bento holds no benchmarks; run this from the repository.", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not _is_from_httpx(error):
            raise
        cause = str(error).split("\n")[0] or type(error).__name__
        print(f"gptoss-bento: the server does not answer as it should: {cause}", file=sys.stderr)
        sys.exit(1)


def _is_from_httpx(error: Exception) -> bool:
    """Importing httpx takes a fifth of what `plan` takes in all, and code that raises its errors has imported it."""
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(error, httpx.HTTPError)
