"""`gptoss-bento`: what an operator types beside `bentoml`.

`plan` answers at once, so nothing heavy is imported up here: not BentoML, not what talks to servers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from gptoss_bento import environment, hardware, plan_report
from gptoss_bento.errors import ArtifactError, ConfigurationError, GptOssBentoError
from gptoss_bento.goal import Goal
from gptoss_bento.model_lookup import PLAN_LIMIT_S, architecture_check, finder
from gptoss_bento.plan import OUTPUT_CHUNK, EnginePlan, make_plan
from gptoss_bento.profile import AUTOMATIC, load_profile
from gptoss_bento.profile_choice import choose_profile
from gptoss_bento.settings import Settings

if TYPE_CHECKING:
    from gptoss_bento.artifacts import Artifacts
    from gptoss_bento.bench import frontend, guards
    from gptoss_bento.bench.compare import Shape
    from gptoss_bento.bench.jobs import Measured
    from gptoss_bento.bench.jobs import Shape as JobShape
    from gptoss_bento.bench.report import Row, Run
    from gptoss_bento.bench.swarm import Route

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
bench_app = typer.Typer(invoke_without_command=True)
app.add_typer(bench_app, name="bench")
console = Console()

ProfileOption = Annotated[str | None, typer.Option(help="A profile of configs/, or the path of a .yaml file.")]
ModelOption = Annotated[str | None, typer.Option(help="The model's name at --url; the first one, if not given.")]
LengthOption = Annotated[int, typer.Option(help="Tokens of an answer on average: half to one and a half of it.", min=2)]


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
        _, planned = _plan(profile, gpu, goal)
    except GptOssBentoError as error:
        if as_json:
            _print_json({"refused": str(error)})
        raise
    if as_json:
        _print_json(plan_report.as_json(planned))
    else:
        plan_report.print_plan(planned, console)


@app.command()
def prepare(profile: ProfileOption = None) -> None:
    """Fetches and verifies what the service needs: weights, tokenizer, Harmony vocabulary."""
    settings, planned = _plan(profile)
    found = _prepare(settings, planned)
    console.print(f"model       {found.model}\nvocabulary  {found.vocabulary_dir}", soft_wrap=True)


@app.command()
def build(
    profiles: Annotated[list[str] | None, typer.Argument(help="Profiles of configs/; all, if none is given.")] = None,
    platform: Annotated[
        str | None, typer.Option(help="What the image is for: cpu, cuda or rocm. Default: what the profile needs.")
    ] = None,
) -> None:
    """Builds a Bento for each profile and prints its tag, for `bentoml serve TAG` and `bentoml containerize TAG`."""
    from gptoss_bento import building

    for tag in building.build(profiles or (), platform):
        console.print(tag, soft_wrap=True)


@app.command()
def bake(profile: ProfileOption = None) -> None:
    """Fills GPTOSS_BENTO_CACHE with all that a start without network needs, verified, and writes a manifest.

    The model is what MODEL_NAME names; without it, only what comes with this package. An image is baked like this.
    """
    from gptoss_bento import baking

    settings = environment.load_settings()
    chosen = _chosen(profile, settings)
    home = environment.choose_baking_home(settings)
    baked = baking.bake(settings, None if chosen == AUTOMATIC else load_profile(chosen), home)
    for source in baked.sources:
        size = sum(file.bytes for file in source.files) / 1e9
        console.print(f"{source.name}  {source.commit or ''}  {len(source.files)} files, {size:.3f} GB", soft_wrap=True)


@app.command()
def verify() -> None:
    """Compares every file of a baked folder (GPTOSS_BENTO_CACHE) with its manifest. Ends with 69 if one differs."""
    from gptoss_bento import manifest

    folder = environment.cache_dir()
    baked = manifest.read(folder)
    if baked is None:
        raise ConfigurationError(f"{folder} has no {manifest.NAME}; `gptoss-bento bake` writes one.")
    if wrong := list(manifest.problems(baked, folder)):
        raise ArtifactError("\n".join(wrong))
    console.print(f"{sum(len(source.files) for source in baked.sources)} files are as the manifest says")


@app.command()
def doctor(
    profile: ProfileOption = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to bind, if not PORT's or 3000.", min=1, max=65535, envvar="BENTOML_PORT"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask neither the hub nor tool servers.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer from the network.", min=0.1)] = 1.0,
    json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Checks all that would keep the service from starting or serving well, with a remedy for each finding.

    Ends with 0 if nothing is wrong, 1 if there are warnings, else with the exit code the service would stop with.
    """
    from gptoss_bento.doctor import examination, finding, report

    request = examination.Request(profile, port, not offline, timeout)
    found = asyncio.run(examination.examine(request))
    if json_output:
        typer.echo(json.dumps(report.as_json(found), indent=2, ensure_ascii=False))
    else:
        console.print(report.as_table(found))
    raise typer.Exit(finding.exit_code(found))


@bench_app.callback()
def bench(
    context: typer.Context,
    profile: ProfileOption = None,
    url: Annotated[
        str | None, typer.Option(help="A server that runs already, ending in /v1. Without: start both.")
    ] = None,
    model: ModelOption = None,
    streams: Annotated[str, typer.Option(help="Numbers of simultaneous requests.")] = "1,8,32",
    runs: Annotated[int, typer.Option(help="How often each server is started; the medians are compared.")] = 3,
    together: Annotated[
        bool,
        typer.Option("--together", help="Starts each once, both at a time if there is room, and loads them in turn."),
    ] = False,
    max_tokens: LengthOption = 64,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench.json"),
) -> None:
    """Measures this service against bare vLLM on the same arguments, in turn in one run, and prints the ratios."""
    context.with_resource(_ended_in_order())
    if context.invoked_subcommand:
        _refuse_options_before(context)
        return
    from gptoss_bento.bench.compare import Shape, measure_running
    from gptoss_bento.bench.report import as_json, rows

    shape = Shape(_numbers(streams), max_tokens=max_tokens)
    ours, bare = ([measure_running(url, model, shape)], []) if url else _compare(profile, runs, shape, together)
    _save(output, as_json(ours, bare))
    _show_compared(rows(ours, bare))


@bench_app.command("jobs")
def bench_jobs(
    profile: ProfileOption = None,
    url: Annotated[
        str | None, typer.Option(help="A server that runs already, ending in /v1, without jobs. Without: start it.")
    ] = None,
    model: ModelOption = None,
    pairs: Annotated[int, typer.Option(help="Chat requests, and as many jobs of the same content.", min=1)] = 50,
    jobs: Annotated[int, typer.Option(help="Jobs in the queue.", min=1)] = 1000,
    clients: Annotated[int, typer.Option(help="How many put them there at once.", min=1)] = 8,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-jobs.json"),
) -> None:
    """Measures what a job costs beside the same chat request, and how fast the job API answers with a full queue.

    Purges the queue of the server, so it must be empty. The first key of API_KEY that is no hash is sent to --url.
    """
    from gptoss_bento.bench.jobs import Shape, notes, rows

    found = _measure_jobs(profile, url, model, Shape(pairs, jobs, clients))
    _save(output, asdict(found))
    table = Table("figure", "median ms", "p99 ms", box=None)
    for row in rows(found):
        table.add_row(row.figure, _figure(row.median_ms, 1), _figure(row.p99_ms, 1))
    console.print(table)
    for note in notes(found):
        console.print(note, soft_wrap=True)


@bench_app.command("frontend")
def bench_frontend(
    profile: ProfileOption = None,
    streams: Annotated[str, typer.Option(help="Numbers of simultaneous requests.")] = "64,256,1024",
    routes: Annotated[
        str,
        typer.Option(help="completions, chat, or both with a comma. Harmony's parser is a part of what chat costs."),
    ] = "completions",
    rounds: Annotated[int, typer.Option(help="How often either server is measured; medians are compared.", min=1)] = 5,
    turns: Annotated[int, typer.Option(help="Turns of either server in each load of a round, added up.", min=1)] = 4,
    max_tokens: LengthOption = 128,
    requests: Annotated[int, typer.Option(help="Requests of a stream on average, one after the other.", min=1)] = 2,
    workers: Annotated[int, typer.Option(help="API processes of either server over its engine.", min=1)] = 1,
    against: Annotated[
        Literal["vllm", "one-worker"],
        typer.Option(help="Bare vLLM with as many API servers, or this service with one worker."),
    ] = "vllm",
    clients: Annotated[int, typer.Option(help="Processes that ask.", min=1)] = 2,
    step_ms: Annotated[
        float,
        typer.Option(help="Time from step to step of the engine: enough of it, and each message has one token.", min=0),
    ] = 0,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-frontend.json"),
) -> None:
    """Measures the HTTP side alone, on any machine: this service against bare vLLM's API server, without a model.

    Or, with --against one-worker, what more workers bring. Both servers run vLLM's scheduler and engine core, with an
    executor that answers every step at once with random tokens. They run at the same time and are loaded in turn.
    MAX_NUM_SEQS is the largest number of streams, unless it is set.
    """
    from gptoss_bento.bench.frontend import Baseline, Shape, as_json, notes, rows

    asked = (_numbers(streams), _routes(routes), max_tokens, requests)
    shape = Shape(*asked, rounds, turns, workers, clients, step_ms, Baseline(against))

    def keep(found: frontend.Measured) -> None:
        _save(output, as_json(found))

    found = _compare_frontends(profile, shape, keep)
    _show_compared(rows(found), shape.against.server)
    for note in notes(found):
        console.print(note, soft_wrap=True)


@bench_app.command("guards")
def bench_guards(
    profile: ProfileOption = None,
    with_model: Annotated[
        bool, typer.Option("--with-model", help="Serve the profile's model; otherwise none, as `bench frontend` does.")
    ] = False,
    pairs: Annotated[int, typer.Option(help="Pairs of requests whose first token is timed.", min=1)] = 2000,
    streams: Annotated[int, typer.Option(help="Simultaneous requests of a load.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Pairs of loads.", min=1)] = 30,
    max_tokens: LengthOption = 128,
    requests: Annotated[int, typer.Option(help="Requests of a stream on average, one after the other.", min=1)] = 4,
    clients: Annotated[int, typer.Option(help="Processes that ask.", min=1)] = 1,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-guards.json"),
) -> None:
    """Measures what keys and admission cost: this service with both, and the same process asked beside them, in turn.

    The service has ten keys with every limit, none of which is reached. Without a model, what the HTTP side does is
    most of what there is, so tokens/s differ by more than any user would see; --with-model shows what one would.
    """
    from gptoss_bento.bench.guards import Shape, as_json, notes, rows

    shape = Shape(pairs, streams, rounds, requests, max_tokens, clients)

    def keep(found: guards.Measured) -> None:
        _save(output, as_json(found))

    found = _measure_guards(profile, with_model, shape, keep)
    table = Table("figure", "with guards", "without", "change", "95 % from", "to", box=None)
    for row in rows(found):
        change = [f"{each:.3f} {row.unit}" for each in (row.change.value, row.change.low, row.change.high)]
        table.add_row(row.figure, _figure(row.guarded, 2), _figure(row.unguarded, 2), *change)
    console.print(table)
    for note in notes(found):
        console.print(note, soft_wrap=True)


@app.command()
def schema(
    hub: Annotated[bool, typer.Option("--hub", help="As the form of RunPod's hub.")] = False,
    fill: Annotated[Path | None, typer.Option(help="Renews the generated tables of this document instead.")] = None,
) -> None:
    """Prints all settings as JSON Schema, for forms."""
    from gptoss_bento import reference

    if fill:
        fill.write_text(reference.fill(fill.read_text()))
        return
    _print_json(reference.hub_form() if hub else reference.json_schema())


@app.command(hidden=True)
def record_options() -> None:
    """Writes what the installed vLLM says of its options into the package. For developers, after an upgrade."""
    from gptoss_bento import engine

    lines = ",\n".join(json.dumps(row) for row in engine.describe_options())
    Path(__file__).with_name("vllm_options.json").write_text(f"[\n{lines}\n]\n")
    names = json.dumps(engine.describe_variables(), indent=0)
    Path(__file__).with_name("vllm_variables.json").write_text(f"{names}\n")


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def _save(output: Path, content: object) -> None:
    output.write_text(json.dumps(content, indent=2) + "\n")


def _show_compared(rows: Sequence[Row], baseline: str = "vLLM") -> None:
    table = Table("figure", "gptoss-bento", baseline, "ratio", box=None)
    for row in rows:
        table.add_row(row.figure, _figure(row.ours, 1), _figure(row.baseline, 1), _figure(row.ratio, 3))
    console.print(table)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 1,8,32.")
    return numbers


def _routes(text: str) -> tuple[Route, ...]:
    from gptoss_bento.bench.swarm import Route

    try:
        return tuple(Route(name.strip()) for name in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not completions, chat, or both with a comma.") from None


def _refuse_options_before(context: typer.Context) -> None:
    """An option of `bench` before the name of another benchmark would have no effect."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(f"{', '.join(given)} must come after {context.invoked_subcommand!r}.")


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM would end this process alone, and leave behind the servers that it started."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt their end
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(profile: str | None, runs: int, shape: Shape, together: bool) -> tuple[list[Run], list[Run]]:
    from gptoss_bento.bench.compare import compare, compare_together

    settings, planned = _plan(profile)
    found = _prepare(settings, planned)
    name = planned.served_names.value[0]
    variables = _server_variables(profile, settings, planned, found)
    measured = compare_together if together else compare
    return measured(planned.argv(found.model), variables, name, runs, shape, console.print)


def _measure_jobs(profile: str | None, url: str | None, model: str | None, shape: JobShape) -> Measured:
    from gptoss_bento.bench.jobs import measure

    if url:
        key = next((key for key in environment.take_api_keys() if not key.startswith("sha256:")), None)
        return measure(url, model, shape, key, console.print)
    with _started(profile) as base_url:
        return measure(base_url, model, shape, None, console.print)


@contextmanager
def _started(profile: str | None) -> Iterator[str]:
    """This service, with jobs of its own unless the operator named their store. Gives its base URL."""
    from gptoss_bento.bench import servers

    settings, planned = _plan(profile)
    variables = _server_variables(profile, settings, planned, _prepare(settings, planned))
    with _job_store(settings) as store:
        console.print(f"starting the service on the profile {variables['PROFILE']}")
        with servers.started(servers.ours, {**variables, **store}) as running:
            yield running.base_url


@contextmanager
def _job_store(settings: Settings) -> Iterator[dict[str, str]]:
    """A store for a server to be measured, if none is named: by default, others of this machine keep theirs there."""
    with tempfile.TemporaryDirectory() as folder:
        yield {} if settings.server.job_store_url else {"JOB_STORE_URL": f"sqlite:///{folder}/jobs.sqlite3"}


def _compare_frontends(
    profile: str | None, shape: frontend.Shape, keep: Callable[[frontend.Measured], None]
) -> frontend.Measured:
    from gptoss_bento.bench import frontend

    _do_without_model(max(shape.streams), shape.step_ms)
    settings, planned = _plan(profile)
    found = _prepare(settings, planned)
    variables = _server_variables(profile, settings, planned, found)
    with _job_store(settings) as store:
        name = planned.served_names.value[0]
        return frontend.compare(planned.argv(found.model), {**variables, **store}, name, shape, console.print, keep)


def _do_without_model(streams: int, step_ms: float = 0) -> None:
    """The servers to be measured inherit this process's variables."""
    from gptoss_bento.bench.frontend import EXECUTOR
    from gptoss_bento.bench.pace import STEP_MS

    said = environment.load_settings().engine
    seats = {} if "max_num_seqs" in said else {"MAX_NUM_SEQS": str(streams)}
    additional = said.get("additional_config", {})
    pace = {"ADDITIONAL_CONFIG": json.dumps({**additional, STEP_MS: step_ms})} if step_ms else {}
    environment.apply({"DISTRIBUTED_EXECUTOR_BACKEND": EXECUTOR, **seats, **pace})


def _measure_guards(
    profile: str | None, with_model: bool, shape: guards.Shape, keep: Callable[[guards.Measured], None]
) -> guards.Measured:
    from gptoss_bento.bench.guards import measure

    if not with_model:
        _do_without_model(shape.streams)
    settings, planned = _plan(profile)
    variables = _server_variables(profile, settings, planned, _prepare(settings, planned)) | {"API_WORKERS": "1"}
    with _job_store(settings) as store:
        return measure({**variables, **store}, planned.served_names.value[0], shape, console.print, keep)


def _server_variables(profile: str | None, settings: Settings, planned: EnginePlan, found: Artifacts) -> dict[str, str]:
    """What a server to be measured gets beside this process's variables. It listens on loopback and wants no key."""
    chosen = planned.profile if _chosen(profile, settings) == AUTOMATIC else _chosen(profile, settings)
    no_keys = dict.fromkeys(("API_KEY", "VLLM_API_KEY", "API_KEYS", "API_KEYS_FILE"), "")
    variables = planned.variables(found.vocabulary_dir)
    if planned.environment[OUTPUT_CHUNK].origin == "default":  # the service plans it again, bare vLLM has its own
        del variables[OUTPUT_CHUNK]
    return {"PROFILE": chosen, **no_keys, **variables}


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _prepare(settings: Settings, planned: EnginePlan) -> Artifacts:
    from gptoss_bento import artifacts

    return artifacts.prepare(
        planned.model.value,
        planned.revision.value,
        settings.cache_dir,
        settings.vocabulary_dir,
        planned.draft,
        tokenizer=planned.tokenizer,
        bento_models=settings.bento_models,
        check=None if planned.config.architecture else architecture_check(settings),
    )


def _chosen(profile: str | None, settings: Settings) -> str:
    return profile or settings.profile or AUTOMATIC


def _plan(profile: str | None, gpu: str | None = None, goal: Goal | None = None) -> tuple[Settings, EnginePlan]:
    settings = environment.load_settings()
    if goal:
        server = settings.server.model_copy(update={"goal": goal})
        settings = replace(settings, server=server, origins={**settings.origins, "goal": "--goal"})
    machine = hardware.hardware_named(gpu) if gpu else hardware.probe(settings.visible_devices)
    environment.apply_derived(settings)  # where the hub's cache is, before its library is imported
    choice = choose_profile(_chosen(profile, settings), settings, machine, finder(settings, PLAN_LIMIT_S))
    return settings, make_plan(settings, choice.profile, machine, choice.model, choice.origin)


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
    """Importing httpx takes a fifth of what `plan` takes in all, and whoever raises its errors has done so."""
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(error, httpx.HTTPError)
