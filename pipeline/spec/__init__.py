"""A YAML file to a frozen, checked `RunSpec`."""
