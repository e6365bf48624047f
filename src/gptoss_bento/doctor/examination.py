"""The whole examination: settings, machine, plan, then all checks concurrently; none can hold up another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from gptoss_bento.artifacts import compilers, kernel_cache
from gptoss_bento.artifacts.model_lookup import finder
from gptoss_bento.artifacts.prepare import DEMO
from gptoss_bento.concurrency import in_daemon_thread
from gptoss_bento.config import environment, process_environment, tool_server
from gptoss_bento.config.profile import AUTOMATIC, Profile, Requirements
from gptoss_bento.config.settings import Settings
from gptoss_bento.doctor import mcp_handshake, tools
from gptoss_bento.doctor.finding import Finding, error, note, ok, secrets, warning, without
from gptoss_bento.doctor.gpus import check_driver, check_gpu_memory, check_gpu_processes, check_gpus
from gptoss_bento.doctor.hub import Hub, HuggingFaceHub
from gptoss_bento.doctor.installation import (
    check_engine,
    check_libnuma,
    check_packages,
    check_python,
    engine_builds,
    find_lock,
)
from gptoss_bento.doctor.kernels import check_compilers, check_kernel_caches
from gptoss_bento.doctor.model import check_demo, check_model, check_vocabulary
from gptoss_bento.doctor.surroundings import (
    DEFAULT_PORT,
    check_folders,
    check_open_files,
    check_port,
    check_shared_memory,
    check_tool_server,
)
from gptoss_bento.errors import GptOssBentoError, HardwareError
from gptoss_bento.hardware import probe as hardware
from gptoss_bento.hardware.probe import Hardware, VisibleDevices
from gptoss_bento.planning import model_fit
from gptoss_bento.planning.memory_estimate import DEFAULT_UTILIZATION
from gptoss_bento.planning.model_config import ModelConfig, unknown_config
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.profile_choice import Find, ProfileChoice, choose_profile
from gptoss_bento.tools.python import confinement

T = TypeVar("T")


_SPARE_S = 1.0
"""How much longer than the network a check may take; more means that it hangs, on a dead disk for example."""


@dataclass(frozen=True)
class Request:
    """What the operator asked for."""

    profile: str | None = None
    port: int | None = None
    network: bool = True
    timeout_s: float = 1.0
    search: bool = False


@dataclass(frozen=True)
class Machine:
    """Where the facts come from; tests replace them. `variables` of None: those of this process."""

    variables: Mapping[str, str] | None = None
    probe: Callable[[VisibleDevices], Hardware] = hardware.probe
    driver: Callable[[], hardware.Driver | None] = hardware.nvidia_driver
    gpu_use: Callable[[VisibleDevices], tuple[hardware.GpuUse, ...]] = hardware.gpu_use
    hub: Callable[[float], Hub] = HuggingFaceHub
    finder: Callable[[Settings, float], Find] = finder
    tools: compilers.Tools = compilers.HERE
    probe_limit_s: float = 10.0


@dataclass(frozen=True)
class Case:
    """What is known before the checks. None: it could not be found out, and a finding says why."""

    settings: Settings | None = None
    hardware: Hardware | None = None
    choice: ProfileChoice | None = None
    plan: EnginePlan | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def profile(self) -> Profile | None:
        return self.choice.profile if self.choice else None

    @property
    def config(self) -> ModelConfig | None:
        """What is known of the model."""
        return self.choice.model if self.choice else None


Check = Callable[[], Awaitable[Iterable[Finding]]]


async def examine(request: Request, machine: Machine | None = None) -> list[Finding]:
    """All findings, in the order in which a start would meet them."""
    machine = machine or Machine()
    variables = process_environment.extended({}) if machine.variables is None else machine.variables
    case = await _opened(request, machine, variables)
    checks = _checks(request, machine, variables, case)
    limit_s = request.timeout_s + _SPARE_S
    found = await asyncio.gather(*(examined(name, check, limit_s) for name, check in checks.items()))
    hidden = secrets(variables) | _secrets_of_files(case.settings)
    return [without(hidden, finding) for findings in (case.findings, *found) for finding in findings]


def _secrets_of_files(settings: Settings | None) -> frozenset[str]:
    """What errors must not quote and no variable has: the key in SEARCH_API_KEY_FILE."""
    key = settings.tools.search_key if settings else None
    return frozenset({key.get_secret_value()} if key else ())


async def _opened(request: Request, machine: Machine, variables: Mapping[str, str]) -> Case:
    try:
        async with asyncio.timeout(machine.probe_limit_s + request.timeout_s):
            return await in_daemon_thread(open_case, request, machine, variables)
    except TimeoutError:
        found = f"not known: the GPUs did not answer within {machine.probe_limit_s:g} s"
        return Case(findings=(error("hardware", found, _REMEDIES["hardware"], HardwareError),))


async def examined(name: str, check: Check, limit_s: float) -> list[Finding]:
    """What one check finds; one that hangs or breaks is a finding itself."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            return list(await check())
    except TimeoutError as late:
        if not limit.expired():
            return [_broken(name, late)]
        return [warning(name, f"not known: no answer within {limit_s:g} s", "Something hangs: a disk, or the driver.")]
    except GptOssBentoError as problem:
        return [_problem(name, problem, str(problem))]
    except Exception as problem:
        return [_broken(name, problem)]


def _broken(name: str, problem: Exception) -> Finding:
    words = str(problem).strip().split("\n")[0]
    found = f"not known, the check failed: {type(problem).__name__}{f': {words}' if words else ''}"
    return warning(name, found, "This is a defect of the doctor, or of this machine; please report it.")


def _problem(name: str, problem: GptOssBentoError, text: str) -> Finding:
    return error(name, text, _REMEDIES.get(name, "The message says what is allowed."), type(problem))


_REMEDIES = {
    "settings": "Correct or unset the variable; docs/configuration.md has them all.",
    "hardware": "`nvidia-smi` must work; after an update of the driver restart the machine.",
    "driver": "`nvidia-smi` must work; after an update of the driver restart the machine.",
    "profile": "Correct PROFILE or --profile, or the profile's file.",
    "model": "Correct MODEL_NAME, or the model's config.json.",
    "plan": "Change the setting that is named, or choose another PROFILE.",
}


class _Steps:
    """Takes one step after the other; what fails becomes a finding for each line of its message."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def take(self, name: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except GptOssBentoError as problem:
            self.findings += [_problem(name, problem, line) for line in str(problem).splitlines() if line.strip()]
        except Exception as problem:
            self.findings.append(_broken(name, problem))
        return None


def open_case(request: Request, machine: Machine, variables: Mapping[str, str]) -> Case:
    """Settings, hardware, profile and plan, as far as each can be had without the one before it."""
    steps = _Steps()
    settings = steps.take("settings", lambda: environment.load_settings(variables))
    found = steps.take("hardware", lambda: machine.probe(environment.visible_devices(variables)))
    name = request.profile or environment.server_settings(variables).profile or AUTOMATIC
    if settings and machine.variables is None:
        process_environment.apply_derived(settings)  # where the hub's cache is
    choice = _chosen(name, settings, found, _finder(request, machine, settings, steps), steps)
    plan = _plan(settings, choice, found, steps)
    if settings:
        warnings = [warning("settings", each, "Correct or unset the variable.") for each in settings.warnings]
        steps.findings[:0] = [ok("settings", _sources(settings)), *warnings]
    if plan:
        remedy = "Correct PROFILE or MODEL_NAME."
        steps.findings += [_planned(name, plan), *(warning("plan", each, remedy) for each in plan.config.warnings)]
    return Case(settings, found, choice, plan, tuple(steps.findings))


def _finder(request: Request, machine: Machine, settings: Settings | None, steps: _Steps) -> Find:
    """Finds models; what is wrong with a config.json becomes a finding."""
    find = machine.finder(settings or Settings(), request.timeout_s if request.network else 0)

    def find_or_report(model: str, revision: str | None) -> ModelConfig:
        config = steps.take("model", lambda: find(model, revision))
        return config or unknown_config(model, "its config.json is wrong")

    return find_or_report


def _chosen(
    name: str, settings: Settings | None, found: Hardware | None, find: Find, steps: _Steps
) -> ProfileChoice | None:
    """Only the choice of a profile asks for the hardware."""
    if found is None and name == AUTOMATIC:
        return None
    machine = found or Hardware((), cpu_cores=0, memory_bytes=0)
    return steps.take("profile", lambda: choose_profile(name, settings or Settings(), machine, find))


def _plan(
    settings: Settings | None, choice: ProfileChoice | None, found: Hardware | None, steps: _Steps
) -> EnginePlan | None:
    if settings is None or choice is None or found is None:
        return None
    return steps.take("plan", lambda: make_plan(settings, choice.profile, found, choice.model, choice.origin))


def _sources(settings: Settings) -> str:
    return f"from {', '.join(sorted(set(settings.origins.values())))}" if settings.origins else "no variable is set"


def _planned(name: str, plan: EnginePlan) -> Finding:
    why = f" ({plan.profile_origin})" if plan.profile_origin else ""
    found = f"profile {plan.profile}{why}, model {plan.model.value}"
    if name == AUTOMATIC and plan.profile == DEMO and plan.hardware.gpus:
        remedy = "PROFILE=gpt-oss-20b says what is missing."
        return warning("plan", f"{found}, because the GPU found does not suit gpt-oss-20b", remedy)
    return ok("plan", found)


def _checks(request: Request, machine: Machine, variables: Mapping[str, str], case: Case) -> dict[str, Check]:
    """By name, in the order of the table."""
    checks = {"Python": _threaded(check_python), **_package_checks(case)}
    if case.hardware is not None:
        checks |= _gpu_checks(machine, variables, case, case.hardware)
    if case.plan and case.plan.kernel_folder:
        checks |= _kernel_checks(machine, variables, case.plan, case.plan.kernel_folder.value)
    checks |= _model_checks(request, machine, case)
    checks |= _surrounding_checks(request, variables, case)
    return checks | (_tool_checks(request, case.settings) if case.settings else {})


def _threaded(check: Callable[..., Iterable[Finding]], *arguments: object) -> Check:
    """A check that may block. It runs, and its generator to its end, in a thread that does not hold up the exit."""
    return partial(in_daemon_thread, lambda: list(check(*arguments)))


def _package_checks(case: Case) -> dict[str, Check]:
    def compare() -> Iterable[Finding]:
        builds = engine_builds()
        build = builds[0] if builds else ("cuda" if case.hardware and case.hardware.gpus else "cpu")
        return check_packages(find_lock(build), build)

    engine = {"vLLM": _threaded(check_engine, case.hardware), "libnuma": _threaded(check_libnuma)}
    return {**engine, "packages": _threaded(compare)}


def _gpu_checks(machine: Machine, variables: Mapping[str, str], case: Case, found: Hardware) -> dict[str, Check]:
    visible = environment.visible_devices(variables)
    checks = {"driver": _threaded(lambda: check_driver(machine.driver(), found))}
    if requires := _requirements(case):
        checks["GPU"] = _threaded(check_gpus, found, requires)
    if found.gpus:
        used = found.gpus[: _ranks(case.plan)]
        share = _planned_value(case.plan, "gpu_memory_utilization", DEFAULT_UTILIZATION)
        checks["GPU memory"] = _threaded(lambda: check_gpu_memory(used, machine.gpu_use(visible), share))
        checks["GPU processes"] = _threaded(lambda: check_gpu_processes(machine.gpu_use(visible)[: len(used)]))
    return checks


def _kernel_checks(machine: Machine, variables: Mapping[str, str], plan: EnginePlan, folder: Path) -> dict[str, Check]:
    surroundings = kernel_cache.Surroundings(variables, machine.driver, tools=machine.tools)
    plan = compilers.without_all_reduce(plan, variables, machine.tools)

    def check_caches() -> Iterable[Finding]:
        return check_kernel_caches(kernel_cache.inspect(plan, folder, surroundings))

    return {
        "kernel caches": _threaded(check_caches),
        "compiler": _threaded(check_compilers, plan, variables, machine.tools),
    }


def _requirements(case: Case) -> Requirements | None:
    if case.settings is None or case.choice is None:
        return None
    profile, model = case.choice.profile, case.choice.model
    own_model = model_fit.is_own_model(profile, model, case.settings)
    return model_fit.requirements(profile, model, model_fit.is_own_size(profile, model, own_model))


def _model_checks(request: Request, machine: Machine, case: Case) -> dict[str, Check]:
    settings, model = case.settings, _model(case)
    if settings is None or model is None:
        return {"model": _threaded(lambda: [note("model", "not checked, because it is not known yet which one")])}
    vocabulary = _threaded(check_vocabulary, settings.cache_dir, settings.vocabulary_dir)
    if model == DEMO:
        return {"model": _threaded(check_demo, settings.cache_dir), "vocabulary": vocabulary}
    if any(finding.name == "model" for finding in case.findings):  # its config.json is wrong, which was reported
        return {"vocabulary": vocabulary}

    async def ask_hub() -> Iterable[Finding]:
        hub = await in_daemon_thread(machine.hub, request.timeout_s)
        return await check_model(model, _revision(case), hub, request.timeout_s, request.network, known=case.config)

    return {"model": ask_hub, "vocabulary": vocabulary}


def _surrounding_checks(request: Request, variables: Mapping[str, str], case: Case) -> dict[str, Check]:
    has_gpus = bool(case.hardware and case.hardware.gpus)
    servers = _tool_servers(case)
    if request.network and any(map(tool_server.is_address, servers)):
        mcp_handshake.load_client()
    return {
        "port": _threaded(check_port, request.port or environment.server_settings(variables).port or DEFAULT_PORT),
        "folders": _threaded(check_folders, environment.cache_dir(variables), variables, _has_job_store(variables)),
        "open files": _threaded(check_open_files, has_gpus),
        "shared memory": _threaded(check_shared_memory, _ranks(case.plan)),
        **{
            f"tool server {server}": _threaded(check_tool_server, server, request.timeout_s, request.network)
            for server in servers
        },
    }


def _tool_checks(request: Request, settings: Settings) -> dict[str, Check]:
    """Of the tools that are on."""
    choice, timeout_s = settings.tools, request.timeout_s
    checks: dict[str, Check] = {}
    if choice.python != "off":
        compute = tools.compute_confined(settings, timeout_s)
        checks["tool python"] = _threaded(tools.check_python, settings, confinement.problem, compute)
    if choice.search:
        checks["tool search"] = _threaded(tools.check_search, settings, timeout_s, request.network, request.search)
    if choice.mcp_servers and request.network:
        tools.load_mcp_client()
    for server in choice.mcp_servers:
        name = f"MCP server {server.label}"
        checks[name] = _threaded(tools.check_mcp_server, server, timeout_s, request.network)
    return checks


def _has_job_store(variables: Mapping[str, str]) -> bool:
    return environment.server_settings(variables).job_store_url is not None


def _model(case: Case) -> str | None:
    """What would be served, as far as it is known without a plan."""
    if case.settings is None or case.profile is None:
        return None
    return case.settings.model_name or case.profile.model.source


def _revision(case: Case) -> str | None:
    explicit = case.settings.model_revision if case.settings else None
    return explicit or (case.profile.model.revision if case.profile else None)


def _ranks(plan: EnginePlan | None) -> int:
    """GPUs that share the model."""
    return math.prod(int(_planned_value(plan, name, 1)) for name in ("tensor_parallel_size", "pipeline_parallel_size"))


def _planned_value(plan: EnginePlan | None, name: str, default: float) -> float:
    return float(plan.arguments[name].value) if plan and name in plan.arguments else default


def _tool_servers(case: Case) -> list[str]:
    if case.settings is None:
        return []
    return tool_server.listed_servers(case.settings.engine.get("tool_server") or "")
