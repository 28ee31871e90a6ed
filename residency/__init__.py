"""The one owner of the GPU: who is on it, who waits, who goes next."""
