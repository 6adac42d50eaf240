"""From a spec to tables: LiNeS sweeps evaluated in parallel on Ray."""
