"""Recipes of mergekit: read them, merge by them, and turn them into specs."""
