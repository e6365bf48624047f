"""A plan for the eye and for machines. Shows no secrets; values under names that speak of them are left out."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from gptoss_bento.hardware.gpu_catalogue import known_cards, recognised
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.redaction import redacted, redacted_arguments

_ESTIMATED = "Memory figures are an estimate; vLLM measures at start and logs what it found."
_FILLED = ("filled", "driver", "seconds", "bytes", "warmup")
_WIDEST = 40  # characters of a column; a longer value pushes its own origin to the right, not those of all


def print_plan(plan: EnginePlan, console: Console, job_store: Planned | None = None) -> None:
    """Prints values with origins, where the jobs would be, vLLM's arguments, the memory split and warnings."""
    rows = [row for row in plan.rows() if row[0] not in ("memory", "warning")]
    if job_store is not None:
        rows.append(("job store", str(job_store.value), job_store.origin))
    names, values = (min(_WIDEST, max(len(row[column]) for row in rows)) for column in (0, 1))
    for name, value, origin in rows:
        _print_arguments(f"{name:<{names}}  {value:<{values}}  {origin}".rstrip(), console)
    console.print("\nvLLM is started with", style="bold")
    _print_arguments(shlex.join(shown_arguments(plan)), console)
    if plan.memory:
        console.print("\nMemory of each GPU" if plan.hardware.gpus else "\nMemory", style="bold")
        console.print(_memory_table(plan))
        console.print(_ESTIMATED)
    for warning in plan.warnings:
        _print_arguments(f"warning: {warning}", console, style="yellow")


def _print_arguments(text: str, console: Console, style: str | None = None) -> None:
    """Whole, however narrow the terminal: these lines are copied."""
    console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)


def shown_arguments(plan: EnginePlan) -> list[str]:
    """The arguments that vLLM gets, without secrets; the model is named as planned, not where it will be prepared."""
    return redacted_arguments(plan.argv(str(plan.model.value)))


def as_json(plan: EnginePlan) -> dict[str, Any]:
    """The plan as plain data. `memory` is null where it cannot be estimated; `warnings` say why."""
    return {
        "profile": plan.profile,
        "profile_origin": plan.profile_origin,
        "goal": _value("goal", plan.goal),
        "hardware": _hardware(plan),
        "model": _value("model", plan.model),
        "model_size": {
            "value": plan.config.shape.model_dump() if plan.config.shape else None,
            "origin": plan.size.origin,
        },
        "revision": _value("revision", plan.revision),
        "served_names": _value("served_names", plan.served_names),
        "api_workers": _value("api_workers", plan.api_workers),
        "warmup": _value("warmup", plan.warmup),
        "preload": _value("preload", plan.preload),
        "tools": {
            name: {"on": tool.is_on, "how": tool.how, "origin": tool.origin} for name, tool in plan.tools.items()
        },
        "kernel_caches": _kernels(plan),
        "arguments": {name: _value(name, planned) for name, planned in plan.arguments.items()},
        "environment": {name: _value(name, planned) for name, planned in plan.environment.items()},
        "argv": shown_arguments(plan),
        "memory": _memory(plan),
        "warnings": list(plan.warnings),
    }


def _value(name: str, planned: Planned) -> dict[str, Any]:
    return {"value": redacted(name, planned.value), "origin": planned.origin}


def _memory(plan: EnginePlan) -> dict[str, Any] | None:
    if plan.memory is None:
        return None
    figures = {name: round(value, 2) for name, value in asdict(plan.memory).items()}
    return {"estimated": True, **figures}


def _kernels(plan: EnginePlan) -> dict[str, Any] | None:
    """`state` is null for a machine that was only named, whose cache cannot be read."""
    if plan.kernel_folder is None:
        return None
    place = {"folder": str(plan.kernel_folder.value), "origin": plan.kernel_folder.origin}
    if plan.kernels is None:
        return {**place, "state": None}
    kernels, entry = plan.kernels, plan.kernels.entry
    return {
        **place,
        "state": "warm" if entry else "cold",
        "reason": kernels.reason or None,
        "key": {**asdict(kernels.key), "driver": kernels.driver},
        "filled": {name: getattr(entry, name) for name in _FILLED} if entry else None,
        "replacement": str(kernels.replacement) if kernels.replacement else None,
    }


def _hardware(plan: EnginePlan) -> dict[str, Any]:
    gpus = [
        {
            "name": gpu.name,
            "architecture": gpu.architecture,
            "family": gpu.family,
            "memory_gib": round(gpu.memory_gib, 2),
            "bentocloud": _bentocloud(gpu.name),
        }
        for gpu in plan.hardware.gpus
    ]
    return {"origin": plan.hardware.origin, "gpus": gpus}


def _bentocloud(name: str) -> str | None:
    key = recognised(name)
    return known_cards()[key].bentocloud if key else None


def _memory_table(plan: EnginePlan) -> Table:
    table = Table("share", "GiB", box=None)
    table.columns[1].justify = "right"
    if memory := plan.memory:
        for name in ("weights", "activations", "graphs", "kv_cache", "usable"):
            table.add_row(name.replace("_", " ").replace("kv", "KV"), f"{getattr(memory, f'{name}_gib'):.1f}")
        table.add_row("KV tokens", f"{memory.kv_tokens:,}")
        table.add_row(f"requests of {memory.max_model_len:,} tokens", f"{memory.concurrency:.1f}")
    return table
