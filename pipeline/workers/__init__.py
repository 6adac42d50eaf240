"""The actor classes that hold a model or a reward and answer requests."""
