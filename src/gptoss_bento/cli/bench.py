"""`gptoss-bento bench`: this service against others under load.

What measures is imported when it is asked for: it is heavy, and a Bento does not hold it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gptoss_bento.cli import bench_options as options
from gptoss_bento.cli import bench_parts
from gptoss_bento.cli.bench_parts import ModelOption, numbers, save, server_variables
from gptoss_bento.cli.planning import ProfileOption, console, plan_here, prepare_planned
from gptoss_bento.config import environment, process_environment
from gptoss_bento.errors import BenchmarkError, ConfigurationError

if TYPE_CHECKING:
    from gptoss_bento.bench.baselines import Baseline
    from gptoss_bento.bench.compare import FirstLoads, Keep, Shape
    from gptoss_bento.bench.report import Comparison
    from gptoss_bento.bench.token_load import Lengths, TokenLoad

app = typer.Typer(invoke_without_command=True)
app.command("jobs")(bench_parts.jobs)
app.command("frontend")(bench_parts.frontend)
app.command("guards")(bench_parts.guards)
app.command("storing")(bench_parts.storing)

_PROMPT_TOKENS, _SPREAD = 48, 0.5  # of the requests, where --lengths does not say
_MOST_OF_MEMORY = 0.97  # for all servers together; what CUDA needs for each process is beside their shares
_MOST_CLIENTS = 8
_FILE_WIDTH = 160  # characters of a line, where the output is not a terminal


@app.callback()
def bench(
    context: typer.Context,
    profile: ProfileOption = None,
    url: options.Urls = None,
    model: ModelOption = None,
    random_weights: options.RandomWeights = None,
    against: options.Against = None,
    streams: options.Streams = "1,8,32",
    lengths: options.LengthPairs = None,
    max_tokens: options.MaxTokens = 64,
    requests_per_stream: options.RequestsPerStream = 5,
    least_requests: options.LeastRequests = 24,
    runs: options.Runs = None,
    together: options.Together = False,
    memory_share: options.MemoryShare = None,
    first_load: options.FirstLoad = None,
    first_load_times: options.FirstLoadTimes = 10,
    clients: options.Clients = None,
    percentiles: options.Percentiles = "50,90,99",
    percentile_metrics: options.PercentileMetrics = "ttft,tpot,itl",
    new_connections: options.NewConnections = False,
    seed: options.Seed = 0,
    output: Annotated[Path, typer.Option(help="Where the figures go as JSON.")] = Path("bench.json"),
    chart: options.Chart = None,
    logs: options.Logs = None,
) -> None:
    """Measures this service against vLLM in one run; prints figures as `vllm bench serve` names them, and ratios.

    Ends with 1 if a request failed or a server did not start.
    """
    context.with_resource(_ending_servers())
    if context.invoked_subcommand:
        _refuse_options_before(context)
        return
    from gptoss_bento.bench.compare import Shape, measure_running

    loads = _loads(_pairs(lengths, max_tokens), numbers(streams), requests_per_stream, least_requests)
    shape = Shape(
        loads=loads,
        rounds=runs or (1 if url else 3),
        clients=clients or _client_processes(),
        percentiles=_percentiles(percentiles),
        first=_first(first_load, first_load_times, loads),
        new_connections=new_connections,
        seed=seed,
    )
    latencies = _latencies(percentile_metrics)
    keep = _keeper(output, chart, shape)
    if url:
        found = measure_running(_urls(url), model, shape, _report, keep)
    else:
        profile = _choose_random_weights(random_weights, profile)
        found = _compare(profile, _baselines(against), memory_share, together, shape, keep, logs)
    _show(found, latencies)


@app.command("model")
def random_model(
    size: Annotated[options.SizeName, typer.Argument(help="Which of the published shapes.")],
) -> None:
    """Makes the folder of a GPT-OSS without weights, for MODEL_NAME with LOAD_FORMAT=dummy, and prints its path."""
    print(_random_model(size))


def _report(text: str) -> None:
    """Immediately, also where the output goes to a file, since a benchmark takes minutes."""
    print(text, flush=True)


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
def _ending_servers() -> Iterator[None]:
    """SIGTERM would end this process alone, and leave behind the servers that it started."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would interrupt their end
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What is asked


_Pair = tuple["Lengths", tuple[int, ...] | None]


def _pairs(text: str | None, max_tokens: int) -> list[_Pair]:
    """The lengths, each with its own numbers of streams, if it has some."""
    from gptoss_bento.bench.token_load import Lengths

    if text is None:
        return [(Lengths(_PROMPT_TOKENS, max_tokens, _SPREAD), None)]
    return [_pair(part) for part in text.split(",")]


def _pair(text: str) -> _Pair:
    from gptoss_bento.bench.token_load import Lengths

    pair, at, streams = text.partition("@")
    given, colon, asked = pair.partition(":")
    if not (colon and given.isdecimal() and asked.isdecimal() and int(given) and int(asked)):
        raise typer.BadParameter(f"{text!r} is not tokens in and tokens out, such as 128:256 or 1024:1024@512.")
    return Lengths(int(given), int(asked)), numbers(streams.replace("+", ",")) if at else None


def _loads(
    pairs: Sequence[_Pair], streams: tuple[int, ...], requests_per_stream: int, least: int
) -> tuple[TokenLoad, ...]:
    from gptoss_bento.bench.token_load import TokenLoad

    return tuple(
        TokenLoad(each, max(least, each * requests_per_stream), lengths)
        for lengths, own_streams in pairs
        for each in own_streams or streams
    )


def _first(streams: int | None, times: int, loads: Sequence[TokenLoad]) -> FirstLoads | None:
    """Of the lengths that come first."""
    from gptoss_bento.bench.compare import FirstLoads
    from gptoss_bento.bench.token_load import TokenLoad

    return FirstLoads(TokenLoad(streams, streams, loads[0].lengths), times) if streams else None


def _client_processes() -> int:
    """Half of the cores: the other half is for the server under load."""
    import psutil

    return min(_MOST_CLIENTS, max(1, (psutil.cpu_count() or 1) // 2))


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= each <= 100 for each in found):
        raise typer.BadParameter(f"{text!r} is not a list of percentiles such as 50,90,99.")
    return found


def _latencies(text: str) -> list[str]:
    from gptoss_bento.bench.figures import LATENCIES

    found = [each.strip() for each in text.split(",")]
    if unknown := [each for each in found if each not in LATENCIES]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(LATENCIES)}.")
    return found


def _urls(texts: Sequence[str]) -> dict[str, str]:
    """By name; a URL without one is its own."""
    pairs = [text.partition("=") if "=" in text.split("://")[0] else (text, "", text) for text in texts]
    found = {name: url.rstrip("/") for name, _, url in pairs}
    if len(found) < len(texts):
        raise typer.BadParameter("Two of --url have the same name.")
    return found


# The servers


def _random_model(size: options.SizeName) -> Path:
    from gptoss_bento.artifacts import prepare
    from gptoss_bento.bench import random_weights

    settings = environment.load_settings()
    vocabulary = prepare.find_vocabulary(settings.cache_dir, settings.vocabulary_dir)
    return random_weights.make(random_weights.Size(size), settings.cache_dir, vocabulary)


def _choose_random_weights(size: options.SizeName | None, profile: str | None) -> str | None:
    """Puts what the servers need into this process's variables, which they inherit. Returns the profile."""
    if size is None:
        return profile
    from gptoss_bento.bench import random_weights

    wanted = random_weights.variables(random_weights.Size(size), _random_model(size))
    process = environment.load_settings().process
    for name in ("MODEL_NAME", "LOAD_FORMAT"):
        if process.get(name, "") not in ("", wanted[name]):
            raise ConfigurationError(f"{name} is {process[name]!r}, but --random-weights sets it. Unset it.")
    process_environment.apply(wanted)
    return profile or random_weights.Size(size).profile


def _baselines(names: Sequence[str] | None) -> list[Baseline]:
    from gptoss_bento.bench.baselines import Baseline

    try:
        return [Baseline(name) for name in names or (Baseline.SAME_ARGUMENTS,)]
    except ValueError:
        raise typer.BadParameter(f"--against is one of {', '.join(Baseline)}, got {', '.join(names or ())}.") from None


def _compare(
    profile: str | None,
    against: Sequence[Baseline],
    memory_share: float | None,
    together: bool,
    shape: Shape,
    keep: Keep,
    logs: Path | None,
) -> Comparison:
    from gptoss_bento.bench.baselines import candidates
    from gptoss_bento.bench.compare import compare_apart, compare_together

    _share_memory(memory_share, 1 + len(set(against)))
    settings, planned = plan_here(profile)
    found = prepare_planned(settings, planned)
    variables = server_variables(profile, settings, planned, found)
    servers = candidates(against, planned, found.model, variables, memory_share)
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
    measured = compare_together if together or memory_share else compare_apart
    return measured(servers, planned.served_names.value[0], shape, _report, keep, logs)


def _share_memory(share: float | None, servers: int) -> None:
    """Sets our service's share of memory by the variable that an operator would set.

    Raises:
        ConfigurationError: the shares are more than there is, or the variable says something else.
    """
    if share is None:
        return
    if share * servers > _MOST_OF_MEMORY:
        raise ConfigurationError(
            f"--memory-share is {share:g}, but {servers} servers can have {_MOST_OF_MEMORY / servers:.2f} each at most."
        )
    explicit = environment.load_settings().engine.get("gpu_memory_utilization", share)
    if explicit != share:
        raise ConfigurationError(
            f"GPU_MEMORY_UTILIZATION is {explicit:g}, --memory-share {share:g}. Set only one of them."
        )
    process_environment.apply({"GPU_MEMORY_UTILIZATION": f"{share:g}"})


# What comes out


def _keeper(output: Path, chart: Path | None, shape: Shape) -> Keep:
    """Writes both files after each load, so that a run that is broken off leaves them."""
    from gptoss_bento.bench.about import about
    from gptoss_bento.bench.chart import svg
    from gptoss_bento.bench.report import as_json

    begun = about(sys.argv[1:], shape)

    def keep(found: Comparison) -> None:
        save(output, as_json(found, begun))
        if chart and found.loads:
            chart.write_text(svg(found), encoding="utf-8")

    return keep


def _show(found: Comparison, latencies: Sequence[str]) -> None:
    from gptoss_bento.bench.tables import as_tables, notes

    wide = console if console.is_terminal else Console(width=_FILE_WIDTH)
    for table in as_tables(found, latencies):
        wide.print(table)
        wide.print()
    for note in notes(found):
        console.print(note, soft_wrap=True)
    if found.failed or found.failures:
        raise BenchmarkError("Something failed, so the figures do not count: see the warnings above.")
