"""The numbers of a report, read from the tables of a run."""
