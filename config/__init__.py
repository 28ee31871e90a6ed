"""The user's settings: schema, loading, places on disk."""
