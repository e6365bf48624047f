"""How many workers the service has: the supervisor plans it, and each worker finds its slot."""

from __future__ import annotations

from gptoss_bento.artifacts.model_lookup import NO_HUB, finder
from gptoss_bento.config import environment
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import GptOssBentoError
from gptoss_bento.hardware import probe
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.profile_choice import choose_profile
from gptoss_bento.workers import supervisor, worker_process
from gptoss_bento.workers.worker_group import WorkerGroup


def find_worker_group(profile: str | None, worker_number: int | None) -> WorkerGroup:
    """The workers of this service. The supervisor decides how many there are, before it starts them.

    Args:
        profile: as the operator named it.
        worker_number: from 1, as BentoML counts; None: this process is no worker.
    """
    if worker_number is not None:
        return worker_process.own_worker_group(worker_number)
    count = _planned_workers(profile or AUTOMATIC) if supervisor.may_start_several() else 1
    supervisor.create_worker_group(count)
    return WorkerGroup(count=count)


def _planned_workers(profile: str) -> int:
    try:
        settings = environment.load_settings()
        # The number of workers does not depend on what only the hub knows, and this process does not load its library.
        return int(plan_for(profile, settings, probe.probe(settings.visible_devices), NO_HUB).api_workers.value)
    except GptOssBentoError:
        return 1  # that one says what is wrong


def plan_for(profile: str, settings: Settings, machine: Hardware, limit_s: float) -> EnginePlan:
    """The plan of a profile by name, `auto` included.

    Args:
        limit_s: how long the hub may be asked for the model's config.json, in seconds.
    """
    choice = choose_profile(profile, settings, machine, finder(settings, limit_s))
    return make_plan(settings, choice.profile, machine, choice.model, choice.origin)
