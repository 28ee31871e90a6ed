"""The engine host: a process that has imported vLLM once and forks a server per start.

It runs in the engine environment, by its path, with the standard library and vLLM alone; residency's side
of the conversation is ``launchers/vllm/engine_host.py``. See ``launchers/vllm/HOST.md``.
"""
