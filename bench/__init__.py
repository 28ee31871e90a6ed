"""Measurements of Roundhouse against its baselines."""
