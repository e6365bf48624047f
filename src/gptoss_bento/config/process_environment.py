"""This process's variables beside the settings: what it takes out, puts in, and passes on to the processes it starts.

What an operator says is read by `config/environment.py`. Here are the variables that the service's processes set for
one another, and every change of the environment.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gptoss_bento.config import hub_home
from gptoss_bento.config.key_sources import KeySources, key_sources, key_texts
from gptoss_bento.config.settings import Settings, is_unset
from gptoss_bento.config.variables import unset_library_variables
from gptoss_bento.errors import ConfigurationError

_EXIT_NOTE = "GPTOSS_BENTO_EXIT_NOTE"


def exit_note_path() -> Path | None:
    """The supervisor's exit note, as its workers inherit it; None in the supervisor itself: workers/exit_note.py."""
    path = os.environ.get(_EXIT_NOTE)
    return Path(path) if path else None


def set_exit_note_path() -> Path:
    """Names the exit note for the workers that this process will start. Creates nothing."""
    path = Path(tempfile.gettempdir()) / f"gptoss-bento-{uuid.uuid4().hex[:12]}.json"
    os.environ[_EXIT_NOTE] = str(path)
    return path


def compilations_file() -> Path | None:
    """Where the engine's processes record the kernels that they compile; None where no service has started them."""
    path = exit_note_path()
    return path.with_suffix(".compilations") if path else None


def start_times_file() -> Path | None:
    """Where the engine's processes record what their start is made of; None where no service has started them."""
    path = exit_note_path()
    return path.with_suffix(".times") if path else None


def temporary_kernel_folder() -> Path:
    """What a service uses instead of a folder of kernels that cannot be written; outside of a service only its name."""
    path = exit_note_path() or Path(tempfile.gettempdir()) / "gptoss-bento-….json"
    return path.with_suffix(".kernels")


_WORKER_GROUP = "GPTOSS_BENTO_WORKER_GROUP"


def worker_count() -> int:
    """How many worker processes the supervisor of this one starts."""
    return int(os.environ.get(_WORKER_GROUP, "1"))


def set_worker_count(count: int) -> None:
    """Passes it on to the workers that this process will start."""
    os.environ[_WORKER_GROUP] = str(count)


def extended(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's variables and these, for a process that it starts."""
    return {**os.environ, **variables}


def snapshot() -> dict[str, str]:
    """All variables of this process, to be restored in another one."""
    return dict(os.environ)


def restore(variables: Mapping[str, str]) -> None:
    """Sets exactly these variables in this process.

    Those that it has stay untouched: a process that has moved all of them can no longer show a title in `ps`.
    """
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})


def import_path_from(folder: Path) -> dict[str, str]:
    """PYTHONPATH for a process that finds modules in this folder before all others, then where this process's is."""
    entries = (str(folder), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(entry for entry in entries if entry)}


_EARLY_TOKENIZER = "GPTOSS_BENTO_EARLY_TOKENIZER"


def early_tokenizer() -> str:
    """Whose tokenizer the engine's fork server loads ahead: the folder of a model; empty for none."""
    return os.environ.get(_EARLY_TOKENIZER, "")


@contextmanager
def for_fork_server(entries: Sequence[str], tokenizer: str) -> Iterator[None]:
    """A Python that this process starts meanwhile imports from there first, and knows `early_tokenizer`."""
    before = snapshot()
    os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry)
    os.environ[_EARLY_TOKENIZER] = tokenizer
    try:
        yield
    finally:
        restore(before)


def apply(variables: Mapping[str, str]) -> None:
    """Puts planned variables into this process, for the libraries that read them there.

    VLLM_PORT goes: worker-vllm had a port of that name, Kubernetes sets it to an address, and vLLM stumbles over both.
    """
    os.environ.update(variables)
    os.environ.pop("VLLM_PORT", None)


def apply_derived(settings: Settings) -> None:
    """Puts what follows from the settings into this process, before the hub's library reads HF_HOME at its import.

    A library's variable that says nothing goes: an empty HF_HOME would be the current folder, HF_TOKEN=None a token.
    """
    for name in unset_library_variables(os.environ):
        del os.environ[name]
    apply({name: value for name, (value, _) in settings.derived.items()})


def choose_baking_home(settings: Settings) -> Path:
    """HF_HOME for `bake`. Puts it into this process."""
    home = hub_home.baking_home(settings)
    os.environ["HF_HOME"] = str(home)
    return home


def take_key_sources() -> KeySources:
    """The sources, with vLLM's own variable taken away: see `take_api_keys`."""
    take_api_keys()
    return key_sources(os.environ)


def take_api_keys() -> tuple[str, ...]:
    """The texts of `API_KEY`, else `VLLM_API_KEY` (comma lists).

    vLLM would read the second itself, and check it on some routes and in one form only. So it goes under the first
    name from here on, in this process and in those it starts.
    """
    second = os.environ.pop("VLLM_API_KEY", "")
    if is_unset(os.environ.get("API_KEY", "")):
        os.environ["API_KEY"] = second
    return key_texts(os.environ["API_KEY"])


def metrics_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where the operator wants the metrics of the service's processes, `PROMETHEUS_MULTIPROC_DIR`. None: not set.

    Raises:
        ConfigurationError: the folder holds something else, which BentoML would delete.
    """
    text = (os.environ if environ is None else environ).get("PROMETHEUS_MULTIPROC_DIR", "")
    if is_unset(text):
        return None
    folder = Path(text).expanduser()
    other = next((path for path in folder.iterdir() if path.suffix != ".db"), None) if folder.is_dir() else None
    if other or (folder.exists() and not folder.is_dir()):
        holds = f"which holds {other.name}" if other else "which is a file"
        raise ConfigurationError(
            f"PROMETHEUS_MULTIPROC_DIR must be a folder for metrics alone, each start empties it, got {text}, {holds}."
        )
    return folder


def forget_metrics_folder() -> None:
    """From now on prometheus_client, if it is not imported yet, keeps the metrics in this process."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
