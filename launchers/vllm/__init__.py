"""vLLM's servers: started, forked, put to sleep and woken."""
