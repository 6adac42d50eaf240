"""The published image sets of the paper: layouts, counts, class names and templates are in the YAML files here."""
