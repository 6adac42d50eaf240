"""What the spec of a sweep and the spec of a fine-tuning have in common, for the code that serves both."""

from typing import Protocol

from pipeline.spec.run import Backbone, TaskSpec


class ModelSpec(Protocol):
    """A model, the data that it meets, and the plug-ins that both may come from."""

    @property
    def backbone(self) -> Backbone:
        """The model family and architecture."""
        ...

    @property
    def base(self) -> str:
        """The pre-trained checkpoint."""
        ...

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """Tasks by name."""
        ...

    @property
    def plugins(self) -> tuple[str, ...]:
        """Python modules or files to import first."""
        ...
