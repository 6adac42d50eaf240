"""A `RunSpec` to the groups that are searched, with their controls."""
