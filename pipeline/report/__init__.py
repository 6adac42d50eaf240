"""The tables of a run to one page."""
