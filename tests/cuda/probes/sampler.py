"""A script for the CUDA environment: whose sampler vLLM takes for top-k and top-p.

    ENGINE_PYTHON probes/sampler.py JOB ANSWER

JOB is not read. ANSWER: {"flashinfer": whether FlashInfer's is taken, "imported": whether flashinfer was, for that}.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from vllm.platforms import current_platform
from vllm.v1.sample.ops.topk_topp_sampler import flashinfer_sampler_supported

MULTIPROCESSORS = 84  # an RTX 5080's; vLLM would ask CUDA, which has no card


def main() -> None:
    """Ask the function by which vLLM decides."""
    torch.accelerator.current_device_index = lambda: 0
    type(current_platform).num_compute_units = classmethod(lambda cls, device=0: MULTIPROCESSORS)
    answer = {"flashinfer": flashinfer_sampler_supported(), "imported": "flashinfer" in sys.modules}
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
