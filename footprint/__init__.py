"""What a model needs: device memory awake and asleep, RAM, KV cache, told from its files before anything starts."""
