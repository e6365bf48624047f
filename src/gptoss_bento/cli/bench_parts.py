"""`gptoss-bento bench jobs`, `frontend`, `guards` and `storing`: what a part of the service costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.table import Table

from gptoss_bento.cli.planning import ProfileOption, chosen_name, console, plan_here, prepare_planned
from gptoss_bento.config import environment, process_environment
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.process_variables import OUTPUT_CHUNK

if TYPE_CHECKING:
    from gptoss_bento.artifacts.prepare import Artifacts
    from gptoss_bento.bench import frontend as frontend_bench
    from gptoss_bento.bench.checkout import Checkout
    from gptoss_bento.bench.jobs import Measured
    from gptoss_bento.bench.jobs import Shape as JobShape
    from gptoss_bento.bench.report import Row
    from gptoss_bento.bench.swarm import Route
    from gptoss_bento.bench.two_ways import Limits
    from gptoss_bento.bench.two_ways import Measured as WaysMeasured
    from gptoss_bento.bench.two_ways import Shape as WaysShape

    class Part(Protocol):
        """A module that measures a part of the service: `bench.guards`, `bench.storing`."""

        NAMES: tuple[str, str]
        LIMITS: Limits

        def measure(
            self,
            variables: Mapping[str, str],
            model: str,
            shape: WaysShape,
            report: Callable[[str], None],
            keep: Callable[[WaysMeasured], None],
        ) -> WaysMeasured: ...


ModelOption = Annotated[str | None, typer.Option(help="The model's name at --url; the first one, if not given.")]
LengthOption = Annotated[int, typer.Option(help="Tokens of an answer on average: half to one and a half of it.", min=2)]


def jobs(
    profile: ProfileOption = None,
    url: Annotated[
        str | None, typer.Option(help="A server that runs already, ending in /v1, without jobs. Without: start it.")
    ] = None,
    model: ModelOption = None,
    pairs: Annotated[int, typer.Option(help="Chat requests, and as many jobs of the same content.", min=1)] = 50,
    jobs: Annotated[int, typer.Option(help="Jobs in the queue.", min=1)] = 1000,
    clients: Annotated[int, typer.Option(help="How many submit them simultaneously.", min=1)] = 8,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-jobs.json"),
) -> None:
    """Measures what a job costs beside the same chat request, and how fast the job API answers with a full queue.

    Purges the queue of the server, so it must be empty. The first key of API_KEY that is no hash is sent to --url.
    """
    from gptoss_bento.bench.jobs import Shape, notes, rows

    found = _measure_jobs(profile, url, model, Shape(pairs, jobs, clients))
    save(output, asdict(found))
    table = Table("figure", "median ms", "p99 ms", box=None)
    for row in rows(found):
        table.add_row(row.figure, figure(row.median_ms, 1), figure(row.p99_ms, 1))
    console.print(table)
    for note in notes(found):
        console.print(note, soft_wrap=True)


def frontend(
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
        str,
        typer.Option(
            metavar="vllm|one-worker|FOLDER",
            help="Bare vLLM with as many API servers, this service with one worker, or that of another checkout.",
        ),
    ] = "vllm",
    clients: Annotated[int, typer.Option(help="Processes that ask.", min=1)] = 2,
    step_ms: Annotated[
        float,
        typer.Option(help="Time from step to step of the engine: enough of it, and each message has one token.", min=0),
    ] = 0,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-frontend.json"),
) -> None:
    """Measures the HTTP side alone, on any machine: this service against bare vLLM's API server, without a model.

    Or, with --against one-worker, what more workers bring; with a folder, what changed since another commit. Both
    servers run vLLM's scheduler and engine core, with an executor that answers every step immediately with random
    tokens. They run at the same time and are loaded in turn. MAX_NUM_SEQS is the largest number of streams, unless it
    is set.
    """
    from gptoss_bento.bench.frontend import Shape, as_json, notes, rows

    asked = (numbers(streams), _routes(routes), max_tokens, requests)
    shape = Shape(*asked, rounds, turns, workers, clients, step_ms, _baseline(against))

    def keep(found: frontend_bench.Measured) -> None:
        save(output, as_json(found))

    found = _compare_frontends(profile, shape, keep)
    _show_compared(rows(found), shape.against.server)
    for note in notes(found):
        console.print(note, soft_wrap=True)


def guards(
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
    from gptoss_bento.bench import guards
    from gptoss_bento.bench.two_ways import Shape

    shape = Shape(pairs, streams, rounds, requests, max_tokens, clients)
    _show_ways(guards, profile, shape, output, with_model=with_model)


def storing(
    profile: ProfileOption = None,
    pairs: Annotated[int, typer.Option(help="Pairs of requests whose first token is timed.", min=1)] = 400,
    streams: Annotated[int, typer.Option(help="Simultaneous requests of a load.", min=1)] = 16,
    rounds: Annotated[int, typer.Option(help="Pairs of loads.", min=1)] = 20,
    max_tokens: LengthOption = 128,
    requests: Annotated[int, typer.Option(help="Requests of a stream on average, one after the other.", min=1)] = 2,
    clients: Annotated[int, typer.Option(help="Processes that ask.", min=1)] = 1,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench-storing.json"),
) -> None:
    """Measures what storing costs: /v1/responses with `store: true` and `store: false`, in turn, on the model."""
    from gptoss_bento.bench import storing
    from gptoss_bento.bench.two_ways import Shape

    shape = Shape(pairs, streams, rounds, requests, max_tokens, clients, first_tokens=_TOKENS_WITH_TEXT)
    _show_ways(storing, profile, shape, output, with_model=True)


_TOKENS_WITH_TEXT = 8  # of a response: its first tokens are the header of a channel


def _show_ways(part: Part, profile: str | None, shape: WaysShape, output: Path, *, with_model: bool) -> None:
    from gptoss_bento.bench.two_ways import as_json, notes, rows

    def keep(found: WaysMeasured) -> None:
        save(output, as_json(found))

    found = _measure_ways(part, profile, with_model, shape, keep)
    table = Table("figure", *part.NAMES, "change", "95 % from", "to", box=None)
    for row in rows(found):
        change = [f"{each:.3f} {row.unit}" for each in (row.change.value, row.change.low, row.change.high)]
        table.add_row(row.figure, figure(row.full, 2), figure(row.reduced, 2), *change)
    console.print(table)
    for note in notes(found, part.LIMITS):
        console.print(note, soft_wrap=True)


def save(output: Path, content: object) -> None:
    output.write_text(json.dumps(content, indent=2) + "\n")


def _show_compared(rows: Sequence[Row], baseline: str = "vLLM") -> None:
    table = Table("figure", "gptoss-bento", baseline, "ratio", box=None)
    for row in rows:
        table.add_row(row.figure, figure(row.ours, 1), figure(row.baseline, 1), figure(row.ratio, 3))
    console.print(table)


def numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 1,8,32.")
    return numbers


def _routes(text: str) -> tuple[Route, ...]:
    from gptoss_bento.bench.swarm import Route

    known = {route.value: route for route in (Route.COMPLETIONS, Route.CHAT)}
    try:
        return tuple(known[name.strip()] for name in text.split(","))
    except KeyError:
        raise typer.BadParameter(f"{text!r} is not completions, chat, or both with a comma.") from None


def _baseline(text: str) -> frontend_bench.Baseline | Checkout:
    from gptoss_bento.bench.checkout import Checkout, missing_files
    from gptoss_bento.bench.frontend import Baseline

    if text in [*Baseline]:
        return Baseline(text)
    folder = Path(text).resolve()
    if missing := missing_files(folder):
        words = f"{text!r} is not {' or '.join(Baseline)}, nor the folder of a checkout of this project"
        raise typer.BadParameter(f"{words}: it has no {', '.join(missing)}.")
    return Checkout(folder)


def _measure_jobs(profile: str | None, url: str | None, model: str | None, shape: JobShape) -> Measured:
    from gptoss_bento.bench.jobs import measure

    if url:
        key = next((key for key in process_environment.take_api_keys() if not key.startswith("sha256:")), None)
        return measure(url, model, shape, key, console.print)
    with _started(profile) as base_url:
        return measure(base_url, model, shape, None, console.print)


@contextmanager
def _started(profile: str | None) -> Iterator[str]:
    """This service, with separate jobs unless the operator named their store. Yields its base URL."""
    from gptoss_bento.bench import servers

    settings, planned = plan_here(profile)
    variables = server_variables(profile, settings, planned, prepare_planned(settings, planned))
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
    profile: str | None, shape: frontend_bench.Shape, keep: Callable[[frontend_bench.Measured], None]
) -> frontend_bench.Measured:
    from gptoss_bento.bench import frontend

    _do_without_model(max(shape.streams), shape.step_ms)
    settings, planned = plan_here(profile)
    _refuse_shared_job_store(shape, settings)
    found = prepare_planned(settings, planned)
    variables = server_variables(profile, settings, planned, found)
    with _job_store(settings) as store:
        name = planned.served_names.value[0]
        return frontend.compare(planned.argv(found.model), {**variables, **store}, name, shape, console.print, keep)


def _refuse_shared_job_store(shape: frontend_bench.Shape, settings: Settings) -> None:
    from gptoss_bento.bench.checkout import Checkout

    if isinstance(shape.against, Checkout) and settings.server.job_store_url:
        raise ConfigurationError(
            "JOB_STORE_URL is set, and another checkout may change the schema of that store. "
            "Unset it: each server then gets an empty store of its own."
        )


def _do_without_model(streams: int, step_ms: float = 0) -> None:
    """The servers to be measured inherit this process's variables."""
    from gptoss_bento.bench.frontend import EXECUTOR
    from gptoss_bento.bench.pace import STEP_MS

    said = environment.load_settings().engine
    seats = {} if "max_num_seqs" in said else {"MAX_NUM_SEQS": str(streams)}
    additional = said.get("additional_config", {})
    pace = {"ADDITIONAL_CONFIG": json.dumps({**additional, STEP_MS: step_ms})} if step_ms else {}
    process_environment.apply({"DISTRIBUTED_EXECUTOR_BACKEND": EXECUTOR, **seats, **pace})


def _measure_ways(
    part: Part, profile: str | None, with_model: bool, shape: WaysShape, keep: Callable[[WaysMeasured], None]
) -> WaysMeasured:
    if not with_model:
        _do_without_model(shape.streams)
    settings, planned = plan_here(profile)
    variables = server_variables(profile, settings, planned, prepare_planned(settings, planned)) | {"API_WORKERS": "1"}
    with _job_store(settings) as store:
        return part.measure({**variables, **store}, planned.served_names.value[0], shape, console.print, keep)


def server_variables(profile: str | None, settings: Settings, planned: EnginePlan, found: Artifacts) -> dict[str, str]:
    """What a server to be measured gets beside this process's variables. It listens on loopback and wants no key."""
    chosen = planned.profile if chosen_name(profile, settings) == AUTOMATIC else chosen_name(profile, settings)
    no_keys = dict.fromkeys(("API_KEY", "VLLM_API_KEY", "API_KEYS", "API_KEYS_FILE"), "")
    variables = planned.variables(found.vocabulary_dir)
    if planned.environment[OUTPUT_CHUNK].origin == "default":  # the service plans it again, bare vLLM has its own
        del variables[OUTPUT_CHUNK]
    return {"PROFILE": chosen, **no_keys, **variables}


def figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
