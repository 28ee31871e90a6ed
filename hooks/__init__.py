"""What LiteLLM calls: the gate in front of every engine."""
