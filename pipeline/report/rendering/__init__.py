"""The rendering of pages as HTML and Markdown."""
