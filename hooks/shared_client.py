"""One HTTP client for all that LiteLLM asks through OpenAI's SDK, instead of one a request.

For ``/v1/completions`` LiteLLM makes a client of the SDK's own for each request. When the caller of a stream leaves
while keep-alive pings are on, the task that reads it is cancelled twice, the second time amid closing: the connection
stays open, and the engine works to the end for nobody, with the lease given back. LiteLLM's own client closes at once.
"""

from __future__ import annotations

import litellm
from litellm.llms.openai.common_utils import BaseOpenAILLM


def install() -> None:
    """Make the client that LiteLLM makes for chats the one for everything. Called in the loop that is to use it."""
    if litellm.aclient_session is None:
        litellm.aclient_session = BaseOpenAILLM.get_async_http_client()
