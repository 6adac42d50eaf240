"""Runs in object stores (journal segments, local copy, lease) and the caches that runs share."""
