"""Reads a YAML spec into a frozen, validated `RunSpec`."""
