"""Each file against the schema of the tool that reads it, and that the schemas would notice."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from tests.deployment.files import GPU_PROFILES, OVERLAYS, compose, document, manifests, metric_names, queries

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # BentoML's, when it is imported
    from _bentoml_sdk.service.config import validate  # type: ignore[import-untyped]
    from bentoml._internal.cloud.schemas.modelschemas import DeploymentStrategy
    from bentoml._internal.cloud.schemas.schemasv2 import CreateDeploymentSchema
    from bentoml._internal.utils.cattr import bentoml_cattr

SCHEMAS = Path(__file__).parent / "schemas"
RUNPOD = yaml.safe_load((SCHEMAS / "runpod.yaml").read_text())
CUSTOM = {
    "ScaledObject": json.loads((SCHEMAS / "scaled-object.json").read_text()),
    "PodMonitor": json.loads((SCHEMAS / "pod-monitor.json").read_text()),
}
OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.30", "1.37"  # `sleep` in preStop is on by default from 1.30


def check_manifest(manifest: dict[str, Any], version: str) -> None:
    if schema := CUSTOM.get(manifest["kind"]):
        jsonschema.validate(manifest, schema)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_manifest(overlay: str, version: str) -> None:
    for manifest in manifests(overlay):
        check_manifest(manifest, version)


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "ScaledObject", "PodMonitor"])
def test_unknown_field_of_a_manifest_is_found(kind: str) -> None:
    (manifest,) = (copy.deepcopy(each) for each in manifests("gpt-oss-20b") if each["kind"] == kind)
    manifest["spec"]["replcias"] = 1

    with pytest.raises(jsonschema.ValidationError, match="replcias"):
        check_manifest(manifest, NEWEST_KUBERNETES)


def test_docker_compose_takes_its_files() -> None:
    assert {"server", "postgres", "prometheus"} == set(compose("compose.yaml")["services"])
    assert set(compose("compose.yaml", "compose.gpu.yaml")["services"]) == set(compose("compose.yaml")["services"])


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_bentocloud_takes_its_files(profile: str) -> None:
    given = document(f"bentocloud/{profile}.yaml")

    read = bentoml_cattr.structure(given, CreateDeploymentSchema)

    assert _same(read, given)
    for service in given["services"].values():
        validate(service["config_overrides"])
        assert DeploymentStrategy(service["deployment_strategy"])


def test_field_that_bentoml_would_drop_is_found() -> None:
    given = document("bentocloud/gpt-oss-20b.yaml")
    given["services"]["gptoss-bento"]["scaling"]["maximum"] = 3

    assert not _same(bentoml_cattr.structure(given, CreateDeploymentSchema), given)


def _same(read: Any, given: Any) -> bool:
    """Whether nothing of what was given was lost on reading, which BentoML does silently to unknown fields."""
    if isinstance(given, dict):
        own = read if isinstance(read, dict) else {name: getattr(read, name, None) for name in given}
        return all(name in own and _same(own[name], value) for name, value in given.items())
    if isinstance(given, list):
        return len(read or []) == len(given) and all(map(_same, read, given))
    return bool(read == given)


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_runpod_takes_the_endpoints(profile: str) -> None:
    jsonschema.validate(document(f"runpod/{profile}.json"), RUNPOD["endpoint"])


def test_runpod_takes_the_template() -> None:
    jsonschema.validate(document("runpod/pod-template.json"), RUNPOD["template"])


@pytest.mark.parametrize("place", queries())
def test_prometheus_could_parse_every_query(place: str) -> None:
    promql_parser.parse(queries()[place])


def test_panels_do_not_overlap() -> None:
    panels = document("monitoring/grafana-dashboard.json")["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert metric_names() >= {"gptoss_bento_jobs_in_queue", "vllm:num_requests_waiting"}
