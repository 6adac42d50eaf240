"""Image tasks: data sets, zero-shot heads, classification."""
