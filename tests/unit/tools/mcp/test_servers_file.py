"""MCP_SERVERS: what a file says, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.tools.mcp.server import ApprovalFilter, Server, ToolFilter, Transport
from gptoss_bento.tools.mcp.servers_file import ServersFileError, read_servers

SECRET = "s3cret-of-the-operator"


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ServersFileError) as raised:
        read_servers(text, environ)
    assert SECRET not in str(raised.value)
    return list(raised.value.problems)


def test_server_of_a_url_has_the_defaults() -> None:
    assert read_servers("docs: {url: https://mcp.test/mcp}", {}) == (
        Server("docs", "https://mcp.test/mcp", is_operators=True),
    )


def test_server_has_all_that_its_entry_says(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}-3\n")
    text = f"""
    docs:
      url: http://docs.internal:8000/sse?key=${{DOCS_KEY}}
      transport: sse
      headers:
        X-One: Bearer ${{DOCS_KEY}}
        X-Two: {{from_env: DOCS_KEY}}
        X-Three: {{from_file: "{tmp_path / "token"}"}}
        X-Four: plain
      allowed_tools: [search, fetch]
      require_approval: {{always: {{tool_names: [fetch]}}, never: {{read_only: true}}}}
      description: The documents of the house.
      private: true
    other:
      url: https://other.test/
      allowed_tools: {{read_only: true}}
      require_approval: never
    """

    docs, other = read_servers(text, {"DOCS_KEY": f" {SECRET} "})

    assert docs == Server(
        label="docs",
        url=f"http://docs.internal:8000/sse?key={SECRET}",
        transport=Transport.SSE,
        headers={"X-One": f"Bearer {SECRET}", "X-Two": SECRET, "X-Three": f"{SECRET}-3", "X-Four": "plain"},
        allowed_tools=(ToolFilter(frozenset({"search", "fetch"})),),
        require_approval=(ApprovalFilter(ToolFilter(frozenset({"fetch"})), ToolFilter(read_only=True)),),
        description="The documents of the house.",
        is_private=True,
        is_operators=True,
    )
    assert other.allowed_tools == (ToolFilter(read_only=True),)
    assert other.require_approval == ("never",)
    assert SECRET not in repr(docs)


URL = "https://a.test/"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it must have one entry for each server: a label, and below it at least `url:`"),
        ("- a", "it must have one entry for each server: a label, and below it at least `url:`"),
        ("a: {b: [", "it is not YAML at line 1: expected the node content, but found '<stream end>'"),
        (f"a: {{url: {URL}}}\na: {{url: {URL}}}", "it is not YAML at line 1: a is there twice"),
        ("a b: {url: x}", '"a b": a label must begin with a letter'),
        ("python: {url: x}", '"python": a label must begin with a letter'),
        ("3: {url: x}", "3: a label must begin with a letter"),
        ("a: https://a.test", "a: must have `url:` and other fields below it"),
        ("a: {transport: sse}", "a.url is missing: the http(s) URL of the server's endpoint"),
        ("a: {url: 5}", "a.url must be the http(s) URL of the server's endpoint"),
        ("a: {url: ftp://a.test/}", "a.url must begin with https:// or http:// and a host"),
        ("a: {url: 'https://'}", "a.url must begin with https:// or http:// and a host"),
        ("a: {url: 'https://[::1/'}", "a.url is no URL"),
        (
            "a: {url: 'https://u:s3cret-of-the-operator@a.test/'}",
            "a.url must have no user and password before the host",
        ),
        ("a: {url: 'https://a.test/#x'}", "a.url must have no fragment (#...)"),
        ("a: {url: 'https://a.test/ b'}", "a.url must be at most 2048 printable characters of ASCII"),
        (f"a: {{url: {URL}, transport: ws}}", 'a.transport must be auto, http or sse, got "ws"'),
        (f"a: {{url: {URL}, headers: [x]}}", "a.headers must be names with values: a text, perhaps with"),
        (f"a: {{url: {URL}, headers: {{X: [{SECRET}]}}}}", "a.headers must be names with values: a text"),
        (f"a: {{url: {URL}, headers: {{X: {{from_env: N}}}}}}", "a.headers.X: the variable N is not set"),
        (f"a: {{url: {URL}, headers: {{X: 'a${{N}}'}}}}", "a.headers.X: the variable N is not set"),
        (
            f"a: {{url: {URL}, headers: {{X: {{from_file: /no/file}}}}}}",
            "a.headers.X: the file /no/file cannot be read:",
        ),
        (f"a: {{url: {URL}, headers: {{X: {{from_file: /dev/null}}}}}}", "a.headers.X: the file /dev/null is empty"),
        (f"a: {{url: {URL}, headers: {{Host: {SECRET}}}}}", "a.headers.Host is a header that the client sets itself"),
        (f"a: {{url: {URL}, headers: {{'X Y': {SECRET}}}}}", "a.headers.X Y has a name that no header can have"),
        (
            f'a: {{url: {URL}, headers: {{X: "{SECRET}\\nY: z"}}}}',
            "a.headers.X must have a value of at most 8192 printable",
        ),
        (f"a: {{url: {URL}, allowed_tools: search}}", "a.allowed_tools must be a list of names, or {tool_names"),
        (
            f"a: {{url: {URL}, allowed_tools: {{names: [a]}}}}",
            "a.allowed_tools must be a list of names, or {tool_names",
        ),
        (
            f"a: {{url: {URL}, require_approval: sometimes}}",
            "a.require_approval must be always, never, or {always: {tool",
        ),
        (f"a: {{url: {URL}, private: 'yes'}}", 'a.private must be true or false, got "yes"'),
        (f"a: {{url: {URL}, descripton: x}}", "a.descripton: there is no such field; did you mean description?"),
        (f"a: {{url: {URL}, zzz: x}}", "a.zzz: there is no such field; known: url, transport"),
    ],
)
def test_problem_names_the_place_and_what_would_be_right(text: str, problem: str) -> None:
    [found] = problems(text)

    assert found.startswith(problem)


def test_all_problems_are_listed_together() -> None:
    text = "a: {url: 5, private: 1}\nb: {url: 'https://b.test/', headers: {X: {from_env: MISSING}}}\nc: {}"

    assert [problem.split(" ")[0] for problem in problems(text)] == ["a.url", "a.private", "b.headers.X:", "c.url"]
