"""All that is replaced of vLLM, its MoE kernels and Triton in the engine's processes. `register` applies it."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

_UNIT = "tests/unit/engine/vllm_plugin/"

ROUTER_WARM_UP = Patch(
    "vllm.model_executor.warmup.kernel_warmup:_warmup_ll_bf16_router_gemm",
    "From Hopper on, each start compiles CuTe kernels that a GPT-OSS never runs: its router has a bias.",
    "None: KERNEL_CONFIG can leave out FlashInfer's autotuning, not this.",
    "tests/contract/test_vllm.py::test_kernels_of_routers_are_compiled_by_the_function_that_is_replaced",
)
GRAPH_MEMORY = Patch(
    "vllm.v1.worker.gpu.model_runner:_profile_cudagraph_memory",
    "Each start captures the CUDA graphs once only to see how much memory they take, 9 s of it on an H200.",
    "None: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0 captures all the same, and KV_CACHE_MEMORY_BYTES takes a size "
    "that somebody has to know.",
    "tests/contract/test_vllm.py::test_profile_of_graphs_is_the_function_that_is_replaced",
)
TOP_K = Patch(
    "triton_kernels.topk:topk_forward",
    "The row stride is a constant of two kernels and grows with the batch: some 250 compilations while streams wait. "
    "The function is compiled again with one stride; `exec` in its module replaces it.",
    "None: another MOE_BACKEND has other kernels, and is slower on these cards.",
    _UNIT + "test_routing_kernels.py::test_known_kernels_are_all_changed",
    only_with="cuda",
)
ALLOCATE_SLOTS = Patch(
    "vllm.v1.core.kv_cache_manager:KVCacheManager.allocate_slots",
    "Each step asks for each request whether blocks are needed, can be freed or are complete, in Python on one core: a "
    "quarter of the time of a step with 256 streams. Most answers are no, and block_bookkeeping.py foresees them.",
    "`--scheduler-cls` takes a scheduler of ours, which would have to copy a thousand lines to change this call.",
    "tests/contract/test_block_bookkeeping.py::test_blocks_are_those_of_vllm_alone",
)
CACHE_BLOCKS = Patch(
    "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.cache_blocks",
    "The same for blocks that are complete, once more for each token that came.",
    ALLOCATE_SLOTS.instead,
    ALLOCATE_SLOTS.test,
)
UPDATE_REQUEST = Patch(
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._update_request_with_output",
    "Each token of each request takes nine calls in Python on that core, 15 % of its time with 256 streams; "
    "token_bookkeeping.py does a token that ends nothing in one.",
    ALLOCATE_SLOTS.instead,
    "tests/contract/test_token_bookkeeping.py::test_answers_are_those_of_vllm_alone",
)
DESCRIBE_CONSTANTS = Patch(
    "triton.runtime.jit:serialize_specialization_data",
    "Triton describes each kernel to its hooks as JSON, which not all constants are: the compilation would fail.",
    "None in Triton; vLLM replaces the same function, and leaves ours where it finds the mark `_vllm_guarded`.",
    "tests/contract/test_triton.py::test_constant_that_is_no_json_stops_no_compilation",
)
BEFORE_COMPILATION = Patch(
    "triton.knobs:runtime.jit_cache_hook",
    "How long a compilation takes: this hook is called before it.",
    "It is Triton's own hook, and public.",
    "tests/contract/test_triton.py::test_monitor_of_vllm_still_records_and_logs_once_the_service_is_ready",
)
AFTER_COMPILATION = Patch(
    "triton.knobs:runtime.jit_post_compile_hook",
    "Which kernel was compiled. vLLM's monitor calls the hook that it finds here.",
    BEFORE_COMPILATION.instead,
    BEFORE_COMPILATION.test,
)

PATCHES: tuple[Patch, ...] = (
    ROUTER_WARM_UP,
    GRAPH_MEMORY,
    TOP_K,
    ALLOCATE_SLOTS,
    CACHE_BLOCKS,
    UPDATE_REQUEST,
    DESCRIBE_CONSTANTS,
    BEFORE_COMPILATION,
    AFTER_COMPILATION,
)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "triton.runtime.jit:JITFunction.do_not_specialize",
        "set",
        "Six MoE kernels (routing_kernels.py names them) are compiled once for all sizes of a batch. The list and each "
        "parameter's flag are set on kernels that exist; of their decorator it would be a public option.",
        "tests/contract/test_triton.py::test_kernel_that_is_general_is_compiled_once",
    ),
    PrivateUse(
        "vllm.utils.jit_monitor:logger",
        "read",
        "A filter on this logger keeps its warnings back until the service is ready; only its name is private.",
        BEFORE_COMPILATION.test,
    ),
    PrivateUse(
        "vllm.v1.worker.gpu_model_runner:logger",
        "read",
        "A filter on this and two more loggers reads the times of a start (start_times.py has the texts).",
        "tests/contract/test_kernel_caches.py::test_start_times_are_still_logged_in_these_texts",
    ),
)
