"""Statistics and coefficients that some methods learn from validation data."""
