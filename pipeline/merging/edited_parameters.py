"""Which parameters the policies of a language model change, and whether their adapters may stay beside it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.resident_low_rank import may_stay_apart
from pipeline.merging.scaling import LayerSizes
from pipeline.merging.task_vectors import layer_sizes
from tasks.base import Backbone


class Edited:
    """Told of one policy after the other, as no two need be in memory.

    The constant of equal mean is a mean over these parameters: so it is the same whether policies are adapters or whole
    models, and whatever other arms there are.

    Attributes:
        apart: whether `AdaptedModel` can hold all of them.
    """

    def __init__(self, backbone: Backbone, methods: Sequence[str]) -> None:
        """Of policies of the model that `backbone` holds, merged by `methods`."""
        self._module, self._layer_map, self._methods = backbone.module, backbone.layer_map, methods
        self._names: set[str] = set()
        self.apart = True

    def add(self, delta: Mapping[str, Tensor]) -> None:
        """Take note of a policy's task vector."""
        names = delta.factors if isinstance(delta, LowRankDelta) else (n for n, t in delta.items() if bool(t.any()))
        self._names.update(names)
        self.apart = self.apart and may_stay_apart(self._module, [delta], self._methods)

    @property
    def sizes(self) -> LayerSizes:
        """Changed parameters outside the blocks and in each block."""
        changed = {name: p for name, p in self._module.named_parameters() if name in self._names}
        return layer_sizes(self._layer_map, changed)
