"""What the files of docs/deployment say twice must be what the code and configs/ say."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from gptoss_bento.config.profile import load_profile
from gptoss_bento.config.settings import ServerSettings, Settings
from gptoss_bento.config.variables import known_names
from gptoss_bento.doctor.gpus import TORCH_CUDA
from gptoss_bento.hardware.gpu_catalogue import known_cards, recognised
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.http.paths import PROBES
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.workers.sigterm import SHUTDOWN_LIMIT_S
from tests.deployment.files import FOLDER, GPU_PROFILES, OVERLAYS, compose, document, manifest, manifests
from tests.server import REPOSITORY

DEFAULTS = ServerSettings()
PORT = BentoMLContainer.http.port.get()
MARGIN_S = 5
BUSY = 0.75  # of the sequences that a card takes, from which on another replica is wanted
GUIDES = [FOLDER.with_suffix(".md"), *sorted(FOLDER.glob("*.md"))]
COMPOSE_FILES = ("compose.yaml", "compose.gpu.yaml")


def container(overlay: str) -> dict[str, Any]:
    (found,) = manifest(overlay, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def server() -> dict[str, Any]:
    return dict(compose(*COMPOSE_FILES)["services"]["server"])


PLACES = [
    *(f"kubernetes/{overlay}" for overlay in OVERLAYS),
    *(f"{platform}/{profile}" for platform in ("bentocloud", "runpod") for profile in GPU_PROFILES),
    "runpod/pod-template",
    "compose",
]


def variables(place: str) -> dict[str, Any]:
    """The service's variables there, and their values; None: it is in a secret."""
    platform, _, name = place.partition("/")
    if platform == "kubernetes":
        return {each["name"]: each.get("value") for each in container(name)["env"]}
    if platform == "bentocloud":
        return {each["name"]: each["value"] for each in document(f"{place}.yaml")["envs"]}
    return dict(document(f"{place}.json")["env"] if platform == "runpod" else server()["environment"])


@pytest.mark.parametrize("place", PLACES)
def test_variables_are_all_known_to_the_service(place: str) -> None:
    assert not set(variables(place)) - known_names()


@pytest.mark.parametrize("place", PLACES)
def test_profile_of_a_file_is_the_one_it_is_named_after(place: str) -> None:
    profile = variables(place)["PROFILE"]
    named = place.rpartition("/")[2]

    load_profile(profile)
    assert profile == (named if named in OVERLAYS else profile)


# what a replica gets


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_kubernetes_reserves_what_the_profile_wants(profile: str) -> None:
    wanted, given = load_profile(profile).service.resources, container(profile)["resources"]

    assert given["limits"]["nvidia.com/gpu"] == wanted["gpu"]
    assert given["limits"]["memory"] == given["requests"]["memory"] == wanted["memory"]
    assert known_cards()[card_of(profile)].bentocloud == wanted["gpu_type"]


def card_of(profile: str) -> str:
    """The card that a node must have: its label is what the driver calls the card, with dashes."""
    label = manifest(profile, "Deployment")["spec"]["template"]["spec"]["nodeSelector"]["nvidia.com/gpu.product"]
    card = recognised(label.replace("-", " "))
    assert card, label
    return card


def test_demo_gets_what_its_profile_wants_and_no_gpu() -> None:
    wanted, given = load_profile("demo").service.resources, container("demo")["resources"]

    assert given["requests"] == {"cpu": wanted["cpu"], "memory": wanted["memory"]}
    assert given["limits"] == {"memory": wanted["memory"]}


def test_compose_reserves_as_many_gpus_as_the_profiles_want() -> None:
    (device,) = server()["deploy"]["resources"]["reservations"]["devices"]

    assert {load_profile(profile).service.resources["gpu"] for profile in GPU_PROFILES} == {device["count"]}


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_runpod_offers_cards_that_the_profile_can_run_on(profile: str) -> None:
    gpu, requires = document(f"runpod/{profile}.json")["gpu"], load_profile(profile).requires

    assert gpu["count"] == load_profile(profile).service.resources["gpu"]
    for pool in gpu["pools"]:  # named after generation and GB
        (memory,) = re.findall(r"_(\d+)", pool)
        assert int(memory) * gpu["count"] >= requires.total_gpu_memory_gib
    assert gpu["minCudaVersion"] == ".".join(map(str, TORCH_CUDA))


# how it is reached and asked


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_asks_the_probes_at_the_port_that_is_served(overlay: str) -> None:
    asked = container(overlay)
    (port,) = asked["ports"]
    probes = {kind: asked[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}

    assert port["containerPort"] == PORT
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["path"] for probe in probes.values()} <= set(PROBES), "probes bring no key"
    (service_port,) = manifest(overlay, "Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]


def test_compose_publishes_the_port_that_is_served() -> None:
    (published,) = server()["ports"]

    assert (published["host_ip"], published["target"]) == ("127.0.0.1", PORT)


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_runpod_asks_the_ping_at_the_port_that_is_served(profile: str) -> None:
    endpoint = document(f"runpod/{profile}.json")
    ports = {endpoint["env"]["PORT"], endpoint["env"]["PORT_HEALTH"]}

    assert [f"{port}/http" for port in ports] == endpoint["ports"]
    assert endpoint["env"]["HEALTH_CHECK_PATH"] in PROBES


def test_prometheus_scrapes_the_service_with_its_key() -> None:
    (job,) = document("compose/prometheus.yaml")["scrape_configs"]
    (found_by,) = job["dns_sd_configs"]
    (mounted,) = compose("compose.yaml")["services"]["prometheus"]["secrets"]

    assert (found_by["names"], found_by["port"]) == (["server"], PORT)
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{mounted['source']}"
    assert compose("compose.yaml")["secrets"][mounted["source"]]["environment"] == "METRICS_KEY"


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_monitor_and_autoscaler_find_the_pods(profile: str) -> None:
    deployment, monitor = manifest(profile, "Deployment"), manifest(profile, "PodMonitor")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    scaled = manifest(profile, "ScaledObject")

    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == container(profile)["ports"][0]["name"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    for trigger in scaled["spec"]["triggers"]:
        namespaces = re.findall(r'namespace="([^"]*)"', trigger["metadata"]["query"])
        assert namespaces == [deployment["metadata"]["namespace"]] * 2


def image_variable(name: str) -> PurePath:
    """Of the image, before anything else is said."""
    dockerfile = (REPOSITORY / "src/gptoss_bento/bento/docker/serve.dockerfile").read_text()
    (value,) = re.findall(rf"\b{name}=(\S+)", dockerfile)
    return PurePath(value)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_keeps_kernels_in_the_pods_volume(overlay: str) -> None:
    mounted = {each["name"]: each["mountPath"] for each in container(overlay)["volumeMounts"]}

    assert image_variable("KERNEL_CACHE_DIR").is_relative_to(mounted["cache"])


def test_compose_keeps_kernels_in_the_volume() -> None:
    mounted = {each["source"]: each["target"] for each in server()["volumes"]}

    assert image_variable("KERNEL_CACHE_DIR").is_relative_to(mounted["cache"])


def test_runpod_keeps_kernels_on_the_pods_volume() -> None:
    pod = document("runpod/pod-template.json")

    assert PurePath(pod["env"]["KERNEL_CACHE_DIR"]).is_relative_to(pod["mounts"]["persistent"]["path"])


# how it starts, ends and grows


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_waits_until_running_work_has_ended(overlay: str) -> None:
    pod = manifest(overlay, "Deployment")["spec"]["template"]["spec"]
    before_s = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod["terminationGracePeriodSeconds"] >= before_s + needed_to_stop_s(f"kubernetes/{overlay}")


def test_compose_waits_until_running_work_has_ended() -> None:
    assert seconds(server()["stop_grace_period"]) >= needed_to_stop_s("compose")


def needed_to_stop_s(place: str) -> float:
    """From SIGTERM until the last process has ended."""
    return float(variables(place)["DRAIN_TIMEOUT"]) + SHUTDOWN_LIMIT_S + MARGIN_S


def test_start_time_outs_are_longer_than_the_services_own() -> None:
    limit_s = DEFAULTS.vllm_startup_timeout
    for overlay in OVERLAYS:
        assert manifest(overlay, "Deployment")["spec"]["progressDeadlineSeconds"] > limit_s
    for profile in GPU_PROFILES:
        (service,) = document(f"bentocloud/{profile}.yaml")["services"].values()
        assert service["cold_start_timeout"] > limit_s


def seconds(duration: str) -> int:
    """Of "1m0s"."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_autoscaler_adds_a_replica_before_one_is_full(profile: str) -> None:
    plan = make_plan(Settings(), load_profile(profile), hardware_named(card_of(profile)))
    target = int(plan.arguments["max_num_seqs"].value * BUSY)
    jobs, requests = (each["metadata"] for each in manifest(profile, "ScaledObject")["spec"]["triggers"])
    (service,) = document(f"bentocloud/{profile}.yaml")["services"].values()

    assert jobs["threshold"] == str(DEFAULTS.max_concurrency)
    assert requests["threshold"] == str(target)
    assert service["config_overrides"]["traffic"]["concurrency"] == target
    assert document(f"runpod/{profile}.json")["scaling"]["requestCount"] == target


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_scaling_has_bounds(profile: str) -> None:
    scaled = manifest(profile, "ScaledObject")["spec"]
    (service,) = document(f"bentocloud/{profile}.yaml")["services"].values()
    workers = document(f"runpod/{profile}.json")["workers"]

    assert 1 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
    assert 1 <= service["scaling"]["min_replicas"] <= service["scaling"]["max_replicas"]
    assert 1 <= workers["min"] <= workers["max"]


def test_overlays_without_gpus_need_no_autoscaler_extension() -> None:
    assert {each["kind"] for each in manifests("demo")} == {"Deployment", "Service", "PodDisruptionBudget"}


# names and guides


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_bentocloud_knows_the_service_by_its_name(profile: str) -> None:
    (name,) = re.findall(r'@bentoml\.service\(name="([^"]+)"', (REPOSITORY / "service.py").read_text())

    assert list(document(f"bentocloud/{profile}.yaml")["services"]) == [name]
    assert document(f"bentocloud/{profile}.yaml")["bento"].split(":")[0] == name


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_guide_creates_every_secret_that_kubernetes_needs(profile: str) -> None:
    guide = FOLDER.joinpath("kubernetes.md").read_text()
    keys = {each["valueFrom"]["secretKeyRef"]["key"] for each in container(profile)["env"] if "valueFrom" in each}
    (endpoint,) = manifest(profile, "PodMonitor")["spec"]["podMetricsEndpoints"]

    assert {endpoint["authorization"]["credentials"]["key"], *keys} <= set(re.findall(r"from-literal=(\w+)=", guide))


def test_settings_of_the_example_are_all_used() -> None:
    example = (FOLDER / "compose" / ".env.example").read_text()
    used = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose" / "compose.yaml").read_text()))

    assert set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)) == used


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_guides_name_files_that_are_there(guide: Path) -> None:
    text = guide.read_text()
    linked = {guide.parent / name for name in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)}
    commanded = {REPOSITORY / name for name in re.findall(r"docs/deployment/[\w./-]+\w", text)}

    assert linked | commanded
    assert not {str(path) for path in linked | commanded if not path.exists()}
