"""The options of `gptoss-bento bench`, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

SizeName = Literal["20b", "120b"]

Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        help="A server that runs already, ending in /v1; NAME=URL names it. Several: all are compared with the first. "
        "Without: they are started.",
    ),
]
RandomWeights = Annotated[
    SizeName | None,
    typer.Option(help="Serve a GPT-OSS of these shapes with random weights (LOAD_FORMAT=dummy): no download."),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="vllm-same-arguments (default), vllm-serve (as it comes), vllm-serve-api-servers (as it comes, with as "
        "many API servers as ours). May be given several times."
    ),
]
Streams = Annotated[str, typer.Option(help="Numbers of simultaneous requests.")]
LengthPairs = Annotated[
    str | None,
    typer.Option(
        help="Tokens in and out, all of them exactly: 128:256,1024:1024@512. @512+1024 are the numbers of streams for "
        "that pair, instead of --streams."
    ),
]
MaxTokens = Annotated[
    int, typer.Option(help="Without --lengths: 48 tokens in, and half to one and a half of so many out.", min=2)
]
RequestsPerStream = Annotated[int, typer.Option(help="Requests of a stream, one after the other.", min=1)]
LeastRequests = Annotated[int, typer.Option(help="Requests of a load at least.", min=1)]
Runs = Annotated[
    int | None,
    typer.Option(
        help="How often each server gets each load (and is started, without --together); the medians are compared. "
        "Default: 3, with --url 1.",
        min=1,
    ),
]
Together = Annotated[
    bool,
    typer.Option("--together", help="Starts each once, all up at a time if there is room, and loads them in turn."),
]
MemoryShare = Annotated[
    float | None,
    typer.Option(help="The part of the GPU's memory that each server gets; implies --together.", min=0.01, max=1),
]
FirstLoad = Annotated[
    int | None,
    typer.Option(help="Instead of a warm-up: so many streams of one request each, several times.", min=1),
]
FirstLoadTimes = Annotated[int, typer.Option(help="How many times.", min=1)]
Clients = Annotated[int | None, typer.Option(help="Processes that ask. Default: half of the cores, 8 at most.", min=1)]
Percentiles = Annotated[str, typer.Option(help="Which percentiles of the latencies.")]
PercentileMetrics = Annotated[
    str, typer.Option(help="Which latencies are printed: ttft, tpot, itl, e2el. The JSON has all.")
]
NewConnections = Annotated[
    bool, typer.Option("--new-connections", help="A connection for each request; otherwise each stream keeps its own.")
]
Seed = Annotated[int, typer.Option(help="Decides the prompts.")]
Chart = Annotated[Path | None, typer.Option(help="Where a picture of the figures goes, as SVG.")]
Logs = Annotated[Path | None, typer.Option(help="A folder that keeps the output of the servers.")]
