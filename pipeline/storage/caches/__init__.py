"""Scores and completions that runs share."""
