"""The parameters that the policies of a language model change."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.merging.low_rank import LowRankDelta
from pipeline.merging.resident_low_rank import can_stay_low_rank
from pipeline.merging.scaling import LayerSizes
from pipeline.merging.task_vectors import layer_sizes
from tasks.base import Backbone


class EditedParameters:
    """Collects the parameters that policies change. Takes one policy at a time, so that two are never in memory.

    The constant of equal mean is a mean over these parameters, so it is the same whether policies are adapters or whole
    models, and whatever other arms there are.

    Attributes:
        low_rank: whether `AdaptedModel` can hold all policies.
    """

    def __init__(self, backbone: Backbone, only_sums: bool) -> None:
        """Start without policies of the model in `backbone`; `only_sums`: whether all merges are sums of shares."""
        self._module, self._layer_map = backbone.module, backbone.layer_map
        self._names: set[str] = set()
        self.low_rank = only_sums

    def add(self, delta: Mapping[str, Tensor]) -> None:
        """Add the parameters that a policy's task vector changes."""
        names = delta.factors if isinstance(delta, LowRankDelta) else (n for n, t in delta.items() if bool(t.any()))
        self._names.update(names)
        self.low_rank = self.low_rank and can_stay_low_rank(self._module, [delta])

    @property
    def names(self) -> frozenset[str]:
        """Names of the changed parameters."""
        return frozenset(self._names)

    @property
    def sizes(self) -> LayerSizes:
        """Numbers of changed parameters outside the blocks and in each block."""
        changed = {name: p for name, p in self._module.named_parameters() if name in self._names}
        return layer_sizes(self._layer_map, changed)
