"""Pools of workers behind one queue: in this process, on Ray, or in two stages."""
