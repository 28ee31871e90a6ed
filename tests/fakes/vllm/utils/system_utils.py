"""What the engine host uses of vLLM's helpers."""

import multiprocessing
import os


def get_mp_context():
    """vLLM's CPU platform would spawn."""
    return multiprocessing.get_context("spawn")


def in_wsl():
    """Whether this is WSL."""
    return bool(os.environ.get("FAKE_VLLM_WSL"))


def set_process_title(name, suffix=""):
    """Nothing."""
