"""A run from proposals to tables: the driver, the search of each group, selection on validation."""
