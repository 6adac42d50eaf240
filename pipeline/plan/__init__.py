"""Turns a `RunSpec` into the groups that are searched, with their controls."""
