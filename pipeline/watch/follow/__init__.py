"""Follow the journal of a run in progress."""
