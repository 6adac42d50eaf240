"""Values for the report, read from the tables of a run."""
