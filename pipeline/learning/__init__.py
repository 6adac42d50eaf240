"""Compute statistics and learn coefficients of experts from validation data, for the methods that need them."""
