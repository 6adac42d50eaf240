"""Templates to HTML and Markdown."""
