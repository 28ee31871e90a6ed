"""What the engine host uses of vLLM's helpers."""

import multiprocessing


def get_mp_context():
    """vLLM's CPU platform would spawn."""
    return multiprocessing.get_context("spawn")


def set_process_title(name, suffix=""):
    """Nothing."""
