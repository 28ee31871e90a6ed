"""What LiteLLM writes into the log about a request that failed: once, and without a traceback where it is an answer.

A client that repeats a bad request writes a log full of tracebacks that tell nothing.
"""

from __future__ import annotations

import logging

LOGGERS = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router")


def quieten() -> None:
    """Have LiteLLM's loggers write their lines once, and answers as one line. LiteLLM has been imported."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False  # they have a handler of their own, which takes secrets out
        logger.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and _is_answer(record.exc_info[1]):
        record.exc_info = record.exc_text = None
    return True


def _is_answer(error: BaseException | None) -> bool:
    """Whether an error is what somebody answered: LiteLLM or residency with a refusal, or an engine with a status.

    Where the traceback leads to is known then, and the message says all. Anything else is a surprise and keeps it.
    """
    from httpx import HTTPStatusError
    from starlette.exceptions import HTTPException

    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HTTPException | HTTPStatusError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
