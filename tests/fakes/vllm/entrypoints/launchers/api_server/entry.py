"""vLLM's server: the fake engine, with the key and the flags that it understands."""

import asyncio
import itertools
import os
import sys
from pathlib import Path

import engine


def main():
    """Be the fake engine. ``--fake=WORDS`` in ``launcher.args`` goes to it, and a file ``fake`` of its model."""
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # as vLLM's command line does
    print(f"EngineCore by {os.environ['VLLM_WORKER_MULTIPROC_METHOD']}", flush=True)
    words = sys.argv[1:]
    flags = [word for text in words if text.startswith("--fake=") for word in text.removeprefix("--fake=").split()]
    options = dict(itertools.pairwise(words))
    of_the_model = Path(options["--model"], "fake")
    flags += of_the_model.read_text().split() if of_the_model.exists() else []
    os.environ["ENGINE_KEY"] = os.environ["VLLM_API_KEY"]
    flags += ["--sleep-mode"] if "--enable-sleep-mode" in words else []
    sys.argv = ["engine", "--port", options["--port"], "--model", options["--served-model-name"], *flags]
    asyncio.run(engine.main())


if __name__ == "__main__":
    main()
