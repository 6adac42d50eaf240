"""Evaluators that hold models or rewards and answer requests."""
