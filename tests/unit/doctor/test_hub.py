"""The real hub library against a server of our own that answers as the hub does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import close_session

from gptoss_bento.doctor.finding import Finding, Severity, exit_code
from gptoss_bento.doctor.hub import HuggingFaceHub, ask, silent
from tests.unit.doctor.fake_hub import SIZES, FakeHub

MODEL = "openai/gpt-oss-20b"
TOKEN = "hf_secret_of_the_test"


@dataclass
class Reply:
    status: int = 200
    body: Any = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None


@dataclass
class HubServer:
    """What it answers by path; what it was asked, with the header Authorization."""

    url: str = ""
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[HubServer]:
    state = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((path, self.headers["Authorization"]))
            reply = state.replies.get(path, Reply(404, error_code="RepoNotFound"))
            content = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in (("X-Error-Code", reply.error_code), ("X-Error-Message", reply.error_message)):
                if value is not None:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()
    close_session()


@pytest.fixture(autouse=True)
def no_token_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)


def description(gated: object = False) -> Reply:
    siblings = [{"rfilename": name, "size": size} for name, size in SIZES.items()]
    return Reply(body={"id": MODEL, "gated": gated, "siblings": siblings})


def asking(server: HubServer, cache: Path, reply: Reply, token: str | None = None) -> Finding:
    server.replies[f"/api/models/{MODEL}"] = reply
    return ask(HuggingFaceHub(2.0, server.url, token, cache), MODEL, None).finding


# Answers


def test_public_model_is_weighed_without_its_duplicates(server: HubServer, tmp_path: Path) -> None:
    server.replies[f"/api/models/{MODEL}"] = description()

    answer = ask(HuggingFaceHub(2.0, server.url, None, tmp_path), MODEL, None)

    assert answer.download_bytes == 13_000_001_000
    assert (answer.finding.severity, answer.finding.found) == (
        Severity.OK,
        f"{MODEL} is on the hub, 13.0 GB to download",
    )
    assert server.asked == [(f"/api/models/{MODEL}", None)]


def test_revision_is_asked_for_with_the_token(server: HubServer, tmp_path: Path) -> None:
    server.replies[f"/api/models/{MODEL}/revision/v1"] = description()

    answer = ask(HuggingFaceHub(2.0, server.url, TOKEN, tmp_path), MODEL, "v1")

    assert answer.finding.severity is Severity.OK
    assert server.asked == [(f"/api/models/{MODEL}/revision/v1", f"Bearer {TOKEN}")]


def test_gated_model_is_fine_for_a_token_that_has_access(server: HubServer, tmp_path: Path) -> None:
    server.replies[f"/api/models/{MODEL}/auth-check"] = Reply()

    assert asking(server, tmp_path, description("auto"), TOKEN).severity is Severity.OK


@pytest.mark.parametrize(
    ("token", "found", "remedy"),
    [
        (None, f"{MODEL} is gated, and no HF_TOKEN is set", "set HF_TOKEN"),
        (TOKEN, f"{MODEL} is gated, and HF_TOKEN has no access to it", "account"),
    ],
)
def test_gated_model_needs_consent(
    token: str | None, found: str, remedy: str, server: HubServer, tmp_path: Path
) -> None:
    server.replies[f"/api/models/{MODEL}/auth-check"] = Reply(401 if token is None else 403, error_code="GatedRepo")

    finding = asking(server, tmp_path, description("manual"), token)

    assert finding.found == found
    assert remedy in finding.remedy
    assert exit_code([finding]) == 69


@pytest.mark.parametrize(
    ("reply", "token", "found"),
    [
        (Reply(401, error_code="RepoNotFound"), None, f"the hub has no public model {MODEL}, and no HF_TOKEN is set"),
        (Reply(404, error_code="RepoNotFound"), TOKEN, f"the hub has no model {MODEL}, or HF_TOKEN may not see it"),
        (Reply(404, error_code="RevisionNotFound"), None, f"the hub has no revision None of {MODEL}"),
        (
            Reply(401, error_message="Invalid credentials in Authorization header"),
            TOKEN,
            "the hub does not accept HF_TOKEN: it is wrong, expired or revoked",
        ),
        (Reply(403), TOKEN, f"HF_TOKEN may not read {MODEL}"),
        (Reply(503), None, "the hub answers with status 503"),
    ],
)
def test_refusals_are_distinguished(
    reply: Reply, token: str | None, found: str, server: HubServer, tmp_path: Path
) -> None:
    finding = asking(server, tmp_path, reply, token)

    assert finding.found == found
    assert finding.remedy
    assert exit_code([finding]) == 69


def test_hub_answer_429_is_only_a_warning(server: HubServer, tmp_path: Path) -> None:
    assert asking(server, tmp_path, Reply(429)).severity is Severity.WARNING


def test_name_that_is_none_is_not_asked_for(server: HubServer, tmp_path: Path) -> None:
    finding = ask(HuggingFaceHub(2.0, server.url, None, tmp_path), "a/b/c", None).finding

    assert finding.found == "'a/b/c' is no name of a model on the hub"
    assert server.asked == []


def test_network_that_is_missing_is_an_error_with_alternatives(tmp_path: Path) -> None:
    finding = ask(HuggingFaceHub(2.0, "http://127.0.0.1:1", None, tmp_path), MODEL, None).finding

    assert finding.found == "the hub cannot be reached: [Errno 111] Connection refused"
    assert "HTTPS_PROXY" in finding.remedy
    assert "MODEL_NAME" in finding.remedy
    assert exit_code([finding]) == 69


@pytest.mark.parametrize("failure", [httpx2.ReadTimeout(""), OSError()])
def test_error_without_a_message_is_named_by_its_type(failure: Exception, tmp_path: Path) -> None:
    finding = ask(FakeHub(tmp_path, failure), MODEL, None).finding

    assert finding.found == f"the hub cannot be reached: {type(failure).__name__}"


def test_offline_mode_is_reported_without_a_request(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, offline=True)

    finding = ask(hub, MODEL, None).finding

    assert finding.found == f"HF_HUB_OFFLINE is set, and the cache {tmp_path} does not hold {MODEL}"
    assert exit_code([finding]) == 69
    assert hub.asked == []


def test_token_that_an_error_quotes_is_not_shown(tmp_path: Path) -> None:
    failure = httpx2.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}'")

    finding = ask(FakeHub(tmp_path, failure, token=TOKEN), MODEL, None).finding

    assert TOKEN not in str(finding)
    assert "Illegal header value" in finding.found


def test_silence_is_a_warning_that_names_the_option() -> None:
    finding = silent(MODEL, 1.0).finding

    assert (finding.severity, finding.found) == (
        Severity.WARNING,
        f"the hub did not answer for {MODEL} within 1 s",
    )
    assert "--timeout" in finding.remedy


# The cache


def snapshot(cache: Path, commit: str = "a" * 40) -> Path:
    folder = cache / "models--openai--gpt-oss-20b"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    return folder


def test_model_in_the_cache_is_found_there(tmp_path: Path) -> None:
    snapshot(tmp_path)
    hub = HuggingFaceHub(2.0, "http://127.0.0.1:1", None, tmp_path)

    assert hub.has(MODEL, None)
    assert not hub.has(MODEL, "v2")
    assert not hub.has("openai/gpt-oss-120b", None)


def test_interrupted_download_counts_by_its_bytes(tmp_path: Path) -> None:
    blobs = snapshot(tmp_path) / "blobs"
    blobs.mkdir()
    (blobs / "one").write_bytes(b"12345")
    (blobs / "two.incomplete").write_bytes(b"123")
    hub = HuggingFaceHub(2.0, "http://127.0.0.1:1", None, tmp_path)

    assert hub.bytes_here(MODEL) == 8
    assert hub.bytes_here("openai/gpt-oss-120b") == 0
