"""The gateway: our ASGI entry round LiteLLM's app."""
