"""A script for the CUDA environment: what Triton compiles here, for a card and for the host's side of a launch.

    ENGINE_PYTHON probes/compiler.py JOB ANSWER

JOB: {"capabilities": [120, ...]}. ANSWER: {"cubins": {"120": bytes, ...}, "driver": what stops Triton from building its
own driver module with the C compiler and Python's headers, or null, "archs": the architectures of torch's kernels}.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver
from triton.compiler import ASTSource
from triton.runtime.build import compile_module_from_src


@triton.jit
def halve(pointer, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Any kernel."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(pointer + at, tl.load(pointer + at, mask=at < size) / 2, mask=at < size)


def cubin(capability: int) -> int:
    """The size of the kernel's code for a card."""
    signature = {"pointer": "*fp32", "size": "i32", "BLOCK": "constexpr"}
    source = ASTSource(fn=halve, signature=signature, constexprs={(2,): 128})
    return len(triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"])


def driver_module() -> str | None:
    """Build what Triton builds before its first launch; what stops it."""
    source = Path(driver.__file__).with_name("driver.c").read_text()
    try:
        compile_module_from_src(
            src=source, name="cuda_utils", library_dirs=driver.library_dirs(), include_dirs=driver.include_dirs,
            libraries=driver.libraries,
        )  # fmt: skip
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Answer the job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    answer = {
        "cubins": {str(it): cubin(it) for it in job["capabilities"]},
        "driver": driver_module(),
        "archs": torch._C._cuda_getArchFlags().split(),
    }
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
