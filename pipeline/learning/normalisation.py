"""Rebuild a model with batch normalisation: the statistics of each candidate are measured again, on validation samples.

Merged weights change the inputs of every normalisation, so no average of stored statistics is right for them (Jordan et
al., 2023, "REPAIR"). The base and the unscaled experts are no candidates: they keep the statistics of their files.

Shape legend: B samples of a batch, C, H, W an image's channels, height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.learning.inputs import SPLIT, LabelledImages
from pipeline.loading.calibration import BATCH
from pipeline.merging.resident import Materialised, ResidentModel
from pipeline.recipe import Recipe
from tasks.base import Backbone, NonFiniteError, Task
from tasks.batch_norm import batches_of, measuring, statistics
from tasks.tensors import first_names
from tasks.vision.backbones import ImageBackbone

Statistics = Mapping[str, Tensor]


@dataclass(frozen=True)
class Calibration:
    """The samples on which statistics are measured: the same in the same order for every candidate and worker.

    Attributes:
        backbone: whose module is measured.
        tasks: every task of the run.
        samples: task -> number of its first validation samples.
    """

    backbone: Backbone
    tasks: Mapping[str, Task]
    samples: Mapping[str, int]

    @torch.no_grad()
    def measure(self) -> None:
        """Measure the statistics of the backbone's module, in place.

        A batch mixes the images of all tasks, as a variance within each task would leave out how tasks differ. A task
        that gives no images is scored instead, batch by batch, and the scores are dropped.
        """
        with measuring(self.backbone.module):
            mixed = self._images()
            if isinstance(self.backbone, ImageBackbone):
                for batch in self._mixed_batches(mixed):
                    self.backbone.encode(batch)
            for name, count in self.samples.items():
                if name not in mixed:
                    for piece in batches_of(count, BATCH):
                        self.tasks[name].evaluate(self.backbone, SPLIT, piece.start, piece.stop)

    def _images(self) -> dict[str, LabelledImages]:
        if not isinstance(self.backbone, ImageBackbone):
            return {}
        tasks = {name: self.tasks[name] for name in self.samples}
        return {name: task for name, task in tasks.items() if isinstance(task, LabelledImages)}

    def _mixed_batches(self, tasks: Mapping[str, LabelledImages]) -> Iterator[Tensor]:
        """Yield images (B, C, H, W): the first of every task, then the second of every task, and so on."""
        order = sorted((row, place) for place, name in enumerate(tasks) for row in range(self.samples[name]))
        for piece in batches_of(len(order), BATCH) if order else ():
            rows = [[row for row, at in order[piece] if at == place] for place in range(len(tasks))]
            yield torch.cat([self._rows(task, r) for task, r in zip(tasks.values(), rows, strict=True) if r])

    def _rows(self, task: LabelledImages, rows: Sequence[int]) -> Tensor:
        return task.batch(SPLIT, torch.tensor(rows), self.backbone.device)[0]


class NormalisedModel:
    """A resident model with batch normalisation; it can take the place of the resident model in `HeldRecipe`.

    Attributes:
        measured: whether the statistics that the module holds were measured; if not, they are those of a file.
    """

    def __init__(self, resident: ResidentModel, calibration: Calibration, experts: Sequence[Statistics]) -> None:
        """Take a resident model that holds theta0.

        Args:
            resident: of the backbone's module, whose statistics are the base's.
            calibration: of the same backbone.
            experts: the statistics in each expert's file, in the run's order; the base's count where one is missing.
        """
        self._resident, self._calibration, self._experts = resident, calibration, experts
        self._buffers = statistics(calibration.backbone.module)
        self._base = {name: buffer.clone() for name, buffer in self._buffers.items()}
        self.measured = False

    def materialise(self, recipe: Recipe) -> Materialised:
        """Rebuild the weights, then the statistics; neither depends on what was held before.

        Raises:
            NonFiniteError: if a weight, a statistic or an output is NaN or infinite.
            ValueError: as `ResidentModel.materialise`.
        """
        self._restore(self._base)  # Methods that learn from data run the model before its weights are rebuilt.
        made = self._resident.materialise(recipe)
        stored = self._stored(recipe)
        self.measured = stored is None
        if stored is None:
            self._calibration.measure()
            self._check(recipe)
        else:
            self._restore(stored)
        return replace(made, outside=None, start=None)  # statistics of every depth change, too

    def _stored(self, recipe: Recipe) -> Statistics | None:
        """Return the statistics of the base, or of an unscaled expert; None for every other recipe."""
        if recipe.method == "zero":
            return self._base
        if recipe.is_expert:
            return self._experts[recipe.weights.index(1)]
        return None

    def _restore(self, stored: Statistics) -> None:
        for name, buffer in self._buffers.items():
            buffer.copy_(stored.get(name, self._base[name]))

    def _check(self, recipe: Recipe) -> None:
        if bad := [name for name, buffer in self._buffers.items() if not bool(buffer.isfinite().all())]:
            raise NonFiniteError(f"non-finite statistics of batch normalisation in {first_names(bad)}: {recipe}")
