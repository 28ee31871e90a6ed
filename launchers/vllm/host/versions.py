"""What the host uses of vLLM's inside, by vLLM's version: another release is another row.

A row is right if ``tests/acceptance/test_engine_host.py`` passes with that vLLM. Without a row the host says so and
ends, and engines are started the stock way.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Inside:
    """One version's modules and names.

    ``imports`` are what every server imports: without one of them there is no host. ``late`` is what a server imports
    in functions, found by comparing ``sys.modules`` before and after a start: without one of them a start only takes
    longer. Each has what only vLLM for the CPU, or for CUDA, has. ``routes``: names of modules below
    ``vllm.entrypoints`` that are imported late. ``names`` are those that ``internals`` uses, as ``module:name``.
    """

    server: str
    imports: tuple[str, ...]
    imports_cpu: tuple[str, ...]
    imports_cuda: tuple[str, ...]
    late: tuple[str, ...]
    late_cpu: tuple[str, ...]
    late_cuda: tuple[str, ...]
    routes: tuple[str, ...]
    names: tuple[str, ...]

    def first(self, cpu: bool) -> tuple[str, ...]:
        """What has to be imported."""
        return (*self.imports, *(self.imports_cpu if cpu else self.imports_cuda))

    def then(self, cpu: bool) -> tuple[str, ...]:
        """What is better imported."""
        return (*self.late, *(self.late_cpu if cpu else self.late_cuda))


_QUANTISATION = "vllm.model_executor.layers.quantization"

KNOWN = {
    "0.32.0": Inside(
        server="vllm.entrypoints.launchers.api_server.entry",
        imports=(
            "vllm.entrypoints.launchers.api_server.entry",
            "vllm.entrypoints.launchers.cli_args",
            "vllm.v1.engine.async_llm",
            "vllm.v1.engine.core",
            "vllm.v1.engine.coordinator",
            "vllm.v1.engine.utils",
            "vllm.v1.executor.multiproc_executor",
            "vllm.v1.executor.uniproc_executor",
            "vllm.model_executor.model_loader.default_loader",
        ),
        imports_cpu=("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner"),
        # The second is version 1 of the runner, for the models that version 2 does not take yet.
        imports_cuda=(
            "vllm.v1.worker.gpu_worker",
            "vllm.v1.worker.gpu_model_runner",
            "vllm.v1.worker.gpu.model_runner",
            "vllm.v1.worker.gpu.warmup",
        ),
        late=(
            "vllm.entrypoints.serve.instrumentator.metrics",
            "vllm.entrypoints.serve.utils.orca_metrics",
            "vllm.entrypoints.scale_out.factories",
            "vllm.renderers.hf",
            f"{_QUANTISATION}.online.base",
            f"{_QUANTISATION}.compressed_tensors.utils",
            "vllm.plugins.lora_resolvers.hf_hub_resolver",
            "vllm.v1.core.sched.scheduler",
            "vllm.v1.metrics.reader",
            "uvicorn.lifespan.on",
            "uvicorn.protocols.http.httptools_impl",
            "uvicorn.protocols.websockets.auto",
            "setproctitle",
            "xgrammar",
        ),
        late_cpu=("vllm.v1.attention.backends.cpu_attn", "vllm.triton_utils.dispatcher", "vllm.utils.cpu_triton_utils"),
        # Not vllm.compilation.backends: it imports flashinfer, which initialises CUDA.
        late_cuda=(
            "vllm.v1.attention.backends.flash_attn",
            "vllm.v1.attention.backends.triton_attn",
            "vllm.device_allocator.cumem",
            # A quantised model imports all of them to find its own.
            f"{_QUANTISATION}.auto_awq",
            f"{_QUANTISATION}.auto_gptq",
            f"{_QUANTISATION}.compressed_tensors.compressed_tensors",
            f"{_QUANTISATION}.experts_int8",
            f"{_QUANTISATION}.fbgemm_fp8",
            f"{_QUANTISATION}.fp_quant",
            f"{_QUANTISATION}.humming",
            f"{_QUANTISATION}.inc",
            f"{_QUANTISATION}.modelopt",
            f"{_QUANTISATION}.moe_wna16",
            f"{_QUANTISATION}.quark.quark",
            "vllm.models.deepseek_v41.quant_config",
        ),
        routes=("api_router", "serving"),
        names=(
            "vllm.entrypoints.launchers.api_server.entry:main",
            "vllm.utils.system_utils:get_mp_context",
            "vllm.utils.system_utils:set_process_title",
            "vllm.model_executor.models.registry:ModelRegistry",
            "vllm.model_executor.models.registry:_LazyRegisteredModel",
            "vllm.model_executor.models.registry:_ModelInfo",
        ),
    ),
}
