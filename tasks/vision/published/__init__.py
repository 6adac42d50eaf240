"""Published image sets of the paper, described by YAML files: layouts, counts, class names and templates."""
