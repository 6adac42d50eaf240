"""The page of `lines dashboard`."""
