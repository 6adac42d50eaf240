"""Extension of griffe, which reads docstrings for mkdocstrings."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Makes sections `Example:`, as they are here, what griffe knows as `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section's title."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
