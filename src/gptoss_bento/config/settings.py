"""What an operator can say: this server's own settings, and the whole of what was read from the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from gptoss_bento.config.goal import Goal, parse_goal
from gptoss_bento.config.tool_choices import Backend, ToolChoices
from gptoss_bento.config.tool_values import Domains, HttpAddress, OnOffAuto
from gptoss_bento.config.vllm_options import parse_bool
from gptoss_bento.hardware.probe import ALL_DEVICES, VisibleDevices

WEEK_MS = 7 * 24 * 3600 * 1000


_UNSET = frozenset({"", "none", "null"})  # hub forms send the literal words


def is_unset(text: str) -> bool:
    """Whether a variable of this text says nothing."""
    return text.strip().lower() in _UNSET


def comma_list(text: str) -> tuple[str, ...]:
    """ "a, b,": ("a", "b")."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def listed(text: str) -> tuple[str, ...]:
    """The items of a comma list, or of a JSON list of texts. Raises ValueError saying what is allowed."""
    if not text.lstrip().startswith("["):
        return comma_list(text)
    try:
        items = json.loads(text)
    except ValueError:
        items = [None]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("texts with commas between them, or a JSON list of texts")
    return tuple(item.strip() for item in items if item.strip())


_SHORTEST_KEY = 32  # characters of a key that encrypts

Switch = Annotated[bool, BeforeValidator(lambda value: parse_bool(value) if isinstance(value, str) else value)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: listed(value) if isinstance(value, str) else value)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Address = IPv4Address | IPv6Address
Secret = Annotated[SecretStr | None, Field(json_schema_extra={"writeOnly": True})]


def _long_enough(keys: SecretStr | None) -> SecretStr | None:
    texts = comma_list(keys.get_secret_value()) if keys else ()
    if keys and (not texts or any(len(text) < _SHORTEST_KEY for text in texts)):
        raise ValueError(f"texts of {_SHORTEST_KEY} characters or more, with commas between them")
    return keys


EncryptionKeys = Annotated[Secret, AfterValidator(_long_enough)]


class ServerSettings(BaseModel):
    """The settings of this server itself. Each is read from the variable of the same name in upper case.

    Names, defaults and units are those of worker-vllm where it has the setting.
    """

    model_config = ConfigDict(frozen=True, alias_generator=str.upper, populate_by_name=True, extra="ignore")

    # What is served
    profile: str | None = Field(
        None,
        description="A file of configs/ without .yaml, or a path. Default: that of MODEL_NAME, else what fits.",
    )
    goal: Annotated[Goal | None, BeforeValidator(parse_goal)] = Field(
        None, description="What to tune for. Default: balanced."
    )
    allow_other_architectures: Switch = Field(
        False,
        description="Serve also a model whose config.json names another architecture than GptOssForCausalLM; untested.",
    )
    vllm_config_file: Path | None = Field(None, description="YAML file of vLLM options; variables win over it.")
    vllm_extra_args: str | None = Field(
        None, repr=False, description="vLLM options as on its command line; they win over everything."
    )

    # The process
    host: Address | Literal["localhost"] | None = Field(None, description="Address to listen on. Default: BentoML's.")
    port: int | None = Field(None, ge=1, le=65535, description="Port to listen on. Default: 3000.")
    vllm_startup_timeout: int = Field(1200, ge=1, description="Seconds after which a start that hangs is given up.")
    drain_timeout: float = Field(
        5,
        ge=0,
        le=86_400,
        description="Seconds that requests and jobs get to end after SIGTERM; then they are aborted.",
    )
    engine_stall_timeout: float = Field(
        60, ge=0, description="Seconds without a sign of life after which the engine counts as frozen; 0: never."
    )
    warmup: Switch | None = Field(
        None,
        description="Send requests of our own before the service says ready, so that no client waits for kernels to be "
        "compiled. Default: on a GPU.",
    )
    engine_preload: Switch | None = Field(
        None,
        description="Fork the engine's process from one that has imported vLLM meanwhile: 15 s less of a start. "
        "Default: with one NVIDIA GPU.",
    )
    kernel_cache_dir: Folder | None = Field(
        None,
        description="Folder of compiled kernels and graphs, worth a volume. Default: kernels in GPTOSS_BENTO_CACHE.",
    )
    gptoss_bento_cache: Path | None = Field(
        None,
        description="Folder of vocabulary and demo model. Default: gptoss-bento below XDG_CACHE_HOME or ~/.cache.",
    )
    base_path: Path | None = Field(
        None,
        description="Volume of the model cache; HF_HOME's default is there. Default: /runpod-volume, if there.",
    )

    # Who may call
    api_key: Secret = Field(
        None, description="Keys that clients must present, comma list, in plain or as sha256:… Default: open."
    )
    vllm_api_key: Secret = Field(None, description="Second name of API_KEY.")
    api_keys: Secret = Field(None, description="More keys, with names and limits, as YAML or JSON: docs/keys.md.")
    api_keys_file: Path | None = Field(
        None, description="File with such keys, read again when it changes, without a restart."
    )
    public_routes: Names = Field(("/livez", "/readyz", "/ping"), description="Paths that need no key, comma list.")
    cors_origins: Names = Field((), description="Browser origins that may call, comma list. Default: none.")
    endpoint_ids: Names = Field((), description="The only ids accepted in /v2/{id}/, comma list. Default: any.")
    default_endpoint_id: str = Field("local", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Endpoint id in documents.")
    request_timeout: float = Field(3600, gt=0, description="Seconds that one request may take.")
    client_timeout: float = Field(
        120, gt=0, description="Seconds that a client may take to send a request, or leave its answer unread."
    )
    max_header_bytes: int = Field(65_536, ge=1024, description="Largest head of a request; beyond it 431.")
    max_openai_requests: int = Field(
        2048,
        ge=1,
        description="Requests of the OpenAI API that run or wait in the engine at the same time; beyond it 429. Each "
        "generation of a request counts (n, prompts). Jobs have separate slots: MAX_CONCURRENCY. Responses in the "
        "background have half at most, and wait for them.",
    )
    max_openai_body_bytes: int = Field(20_971_520, ge=1, description="Largest body of the OpenAI API.")
    unknown_fields: Literal["ignore", "refuse"] = Field(
        "ignore",
        description="Unknown fields of a request: ignore names them in the header x-ignored-fields, "
        "refuse answers 400.",
    )
    rate_limit: Switch = Field(
        False, description="Enforce RunPod's published request limits, by operation and over all clients."
    )

    # WebSocket mode
    responses_websockets: int = Field(
        1000, ge=1, description="WebSocket connections to /v1/responses at the same time; beyond it 429."
    )
    responses_websockets_per_key: int = Field(
        100, ge=1, description="WebSocket connections of one key. An open server counts as one key."
    )
    responses_websocket_idle: float = Field(
        600, gt=0, description="Seconds without a response after which a WebSocket connection is closed."
    )

    # Stored responses
    vllm_enable_responses_api_store: Literal["0", "1"] = Field(
        "1", description="1: responses of /v1/responses are stored, unless a request says store: false; 0: none is."
    )
    responses_ttl: int = Field(
        2_592_000,
        ge=60,
        description="Seconds that a stored response of /v1/responses is kept: 30 days, as OpenAI's; a conversation as "
        "long after its last change.",
    )
    responses_max: int = Field(
        10_000,
        ge=1,
        description="Stored responses that a key may have, and as many conversations; the oldest go. An open server "
        "counts as one key.",
    )

    responses_encryption_key: EncryptionKeys = Field(
        None,
        description="Key of reasoning.encrypted_content: 32 characters or more. Several with commas between them: the "
        "first encrypts, all decrypt. Default: one that is made at the first use and kept in the database.",
    )

    # Files and batches
    files_dir: Folder | None = Field(
        None,
        description="Folder of the content of /v1/files; replicas with one database must share it. Default: "
        "jobs/files in GPTOSS_BENTO_CACHE.",
    )
    files_max_bytes: int = Field(
        209_715_200, ge=1, description="Largest file of /v1/files; beyond it 413. 200 MB, as OpenAI's for batches."
    )
    files_key_max_bytes: int = Field(
        10_737_418_240,
        ge=1,
        description="Bytes of all files that a key may have; beyond it uploads are refused. What batches write counts, "
        "and is not refused. An open server counts as one key.",
    )
    files_max: int = Field(10_000, ge=1, description="Files that a key may have; beyond it uploads are refused.")
    files_ttl: int = Field(
        2_592_000,
        ge=60,
        description="Seconds that a file, or a batch that has ended, is kept: 30 days, as OpenAI's files for batches.",
    )
    batch_concurrency: int = Field(
        16,
        ge=1,
        description="Lines of batches that run at the same time, of all batches of a service together. They wait while "
        "the engine is full.",
    )
    batches_max: int = Field(100, ge=1, description="Batches of a key that have not ended; beyond it 429.")

    # Tools that the server runs
    python_tool: OnOffAuto | None = Field(
        None,
        description="Whether code that the model writes runs here, for requests with code_interpreter: on, in a child "
        "process that the kernel confines, or no start; auto, on where the kernel can; off, the default.",
    )
    python_tool_memory_mb: int = Field(
        512, ge=64, le=65_536, description="Megabytes of memory of one container, which is one child process."
    )
    python_tool_timeout_s: float = Field(60, ge=1, le=3600, description="Seconds that one piece of code may run.")
    python_tool_idle_s: float = Field(
        1200,
        ge=1,
        le=86_400,
        description="Seconds without code after which a container ends, with its variables: 20 minutes, as OpenAI's.",
    )
    python_tool_containers: int = Field(
        16, ge=1, le=1024, description="Containers of one API worker; beyond it the one that was idle longest ends."
    )
    search_backend: Backend | None = Field(
        None,
        description="Who answers the model's searches, for requests with web_search: exa, you, brave, tavily or "
        "searxng. What is searched for goes there. Default: none.",
    )
    search_api_key: Secret = Field(None, description="Key of SEARCH_BACKEND; wins over the backend's own variable.")
    search_api_key_file: Path | None = Field(None, description="File with the key of SEARCH_BACKEND.")
    exa_api_key: Secret = Field(None, description="Key for SEARCH_BACKEND=exa, and for TOOL_SERVER=demo.")
    ydc_api_key: Secret = Field(None, description="Key for SEARCH_BACKEND=you.")
    brave_api_key: Secret = Field(None, description="Key for SEARCH_BACKEND=brave.")
    tavily_api_key: Secret = Field(None, description="Key for SEARCH_BACKEND=tavily.")
    search_url: HttpAddress | None = Field(
        None, description="Address of SEARCH_BACKEND; searxng needs one. Default: the backend's own."
    )
    browser_open: Switch | None = Field(
        None,
        description="Whether the model may open pages of the Internet, for requests with web_search. Default: with a "
        "SEARCH_BACKEND.",
    )
    browser_allowed_domains: Domains = Field(
        (), description="The only domains, with those below them, that the browser may show, comma list. Default: all."
    )
    browser_blocked_domains: Domains = Field(
        (), description="Domains, with those below them, that the browser never shows, comma list."
    )
    mcp_servers: Path | None = Field(
        None, description="YAML file of MCP servers whose tools requests may name by server_label: docs/tools.md."
    )
    mcp_request_servers: Switch = Field(
        False, description="Whether requests may name MCP servers of their own (server_url), at public addresses."
    )
    tool_timeout_s: float = Field(
        60, ge=1, le=3600, description="Seconds that one call of a browser's or an MCP server's tool may take."
    )
    tool_turn_timeout_s: float = Field(
        600, ge=1, le=86_400, description="Seconds that all calls of tools of one response may take together."
    )
    tools_private_addresses: Switch = Field(
        False,
        description="Browser and MCP servers of requests may reach loopback and private addresses; for tests and "
        "closed networks.",
    )

    # Native jobs
    job_store_url: Secret = Field(
        None,
        description="Database of jobs and stored responses, such as postgresql+asyncpg://…, which replicas may share. "
        "Default: SQLite.",
    )
    native_output_format: Literal["tokens", "openai"] = Field(
        "tokens", description="Shape of the output of prompt and messages jobs."
    )
    native_default_max_tokens: int = Field(100, ge=1, description="max_tokens of jobs that set none.")
    raw_openai_output: Switch = Field(True, description="Streamed OpenAI jobs yield SSE text; off: parsed chunks.")
    default_batch_size: int = Field(50, ge=1, description="Largest number of tokens of a streamed item.")
    default_min_batch_size: int = Field(
        1,
        ge=0,
        validation_alias=AliasChoices("DEFAULT_MIN_BATCH_SIZE", "MIN_BATCH_SIZE"),
        description="Tokens of the first streamed item.",
    )
    default_batch_size_growth_factor: float = Field(
        3,
        ge=0,
        validation_alias=AliasChoices("DEFAULT_BATCH_SIZE_GROWTH_FACTOR", "BATCH_SIZE_GROWTH_FACTOR"),
        description="How much larger each streamed item is than the one before.",
    )
    max_concurrency: int = Field(30, ge=1, description="Jobs that run at the same time.")
    max_queue_size: int = Field(
        10_000, ge=1, description="Jobs, and responses in the background, that may wait, each; beyond it 429."
    )
    execution_timeout_ms: int = Field(
        600_000, ge=5000, le=WEEK_MS, description="Milliseconds that a job may run, unless its policy says otherwise."
    )
    job_ttl_ms: int = Field(
        86_400_000,
        ge=10_000,
        le=WEEK_MS,
        description="Milliseconds that a job may live, unless its policy says otherwise.",
    )
    runsync_wait_ms: int = Field(
        90_000, ge=1000, le=300_000, description="Milliseconds that /runsync waits by default."
    )
    async_result_ttl_ms: int = Field(1_800_000, ge=1000, description="Milliseconds that results of /run stay.")
    sync_result_ttl_ms: int = Field(60_000, ge=1000, description="Milliseconds that results of /runsync stay.")
    max_run_body_bytes: int = Field(10_485_760, ge=1, description="Largest body of /run.")
    max_runsync_body_bytes: int = Field(20_971_520, ge=1, description="Largest body of /runsync.")
    webhook_allow_private: Switch = Field(False, description="Webhooks may go to loopback and private addresses.")
    webhook_retries: int = Field(2, ge=0, description="Further attempts after a webhook failed.")
    webhook_retry_delay_ms: int = Field(10_000, ge=0, description="Milliseconds between these attempts.")
    route_allowlist: Names = Field(
        ("/v1/*", "/tokenize", "/detokenize", "/health", "/version"),
        description="Paths that jobs may name in `route` and `openai_route`, comma list.",
    )


@dataclass(frozen=True)
class Settings:
    """What the operator set, checked but not yet completed. `None` means: not set.

    `engine` maps vLLM option names to values; `origins` names where each value came from. `process` is the whole
    environment, in which the plan finds the operator's own values of what it would set itself; `derived` are
    variables to add to it, with their origins. `warnings` are sentences for the operator. `bento_models` is where
    BentoML keeps the hub's models that a Bento names.
    """

    server: ServerSettings = field(default_factory=ServerSettings)
    model_name: str | None = None
    model_revision: str | None = None
    tokenizer: str | None = None
    served_model_names: tuple[str, ...] = ()
    cache_dir: Path = Path()
    vocabulary_dir: Path | None = None
    bento_models: Path | None = None
    visible_devices: VisibleDevices = ALL_DEVICES
    tools: ToolChoices = field(default_factory=ToolChoices)
    engine: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    derived: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    process: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def profile(self) -> str | None:
        return self.server.profile

    @property
    def goal(self) -> Goal | None:
        return self.server.goal
