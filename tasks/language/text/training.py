"""The training samples of a text task: each prompt with the tokens to learn.

The tokens are those that are scored: of the right choice after its prompt; of an encoder-decoder also the
end-of-sequence token. Of a task with answers it is the first reference with the end-of-sequence token, where generation
ends.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from tasks.base import Backbone, TaskRequest
from tasks.language.text.backbone import LanguageBackbone, as_language, has_encoder
from tasks.language.text.causal_choices import CausalChoices
from tasks.language.text.encoding import Encoded, Encoder
from tasks.language.text.examples import Example
from tasks.language.text.seq2seq_choices import Seq2SeqChoices

logger = logging.getLogger(__name__)


class TextTraining:
    """A task's training split in tokens: see `tasks.training.TrainingSamples`."""

    classifier = None

    def __init__(self, samples: Sequence[Encoded], pad: int) -> None:
        """Take samples with one choice each, the tokens to learn, and the pad token."""
        self._samples, self._pad = samples, pad
        self.lengths = [sample.longest for sample in samples]
        self.targets = [len(sample.choices[0]) for sample in samples]

    def loss(self, backbone: Backbone, rows: Sequence[int], smoothing: float) -> Tensor:
        """Return the mean cross-entropy over all tokens to learn of a batch."""
        model, chosen = as_language(backbone), [self._samples[row] for row in rows]
        layout = (Seq2SeqChoices if has_encoder(model) else CausalChoices)(chosen, self._pad)
        logits_NV, token_N = layout.token_logits(model)
        return F.cross_entropy(logits_NV, token_N, label_smoothing=smoothing)


def training_samples(
    where: str, examples: Sequence[Example], encoder: Encoder, backbone: LanguageBackbone
) -> TextTraining:
    """Encode the training split of a task.

    Args:
        where: field of the spec, for warnings.
        examples: with choices or with answers.
        encoder: as for scoring.
        backbone: that is trained.

    Raises:
        ValueError: if a prompt or a target is longer than the model's context; the row is named.
    """
    before = encoder.cut
    samples = [_sample(example, encoder, backbone) for example in examples]
    if cut := encoder.cut - before:
        logger.warning("%s: %d of %d training prompts are cut to max_prompt_tokens", where, cut, len(samples))
    return TextTraining(samples, int(backbone.tokenizer.pad_token_id or 0))


def _sample(example: Example, encoder: Encoder, backbone: LanguageBackbone) -> Encoded:
    text = example.answers[0] if example.answers else example.choices[example.label]
    sample = encoder.choices(replace(example, choices=(text,), label=0))
    target = sample.choices[0]
    if example.answers and not has_encoder(backbone):
        target = (*target, int(backbone.tokenizer.eos_token_id or 0))
        sample = replace(sample, choices=(target,))
    longest = len(target) if has_encoder(backbone) else sample.longest
    if backbone.context is not None and longest > backbone.context:
        raise ValueError(
            f"{example.where}: its target has {len(target)} tokens, and the model takes at most {backbone.context} "
            f"in all; remove the row"
        )
    return sample


def without_scored(request: TaskRequest, splits: Mapping[str, list[Example]]) -> dict[str, list[Example]]:
    """Leave training examples out that are in val or test too, and cut val and test to their limits."""
    scored = {_content(e) for split, some in splits.items() if split != "train" for e in some}
    train = [example for example in splits["train"] if _content(example) not in scored]
    if copies := len(splits["train"]) - len(train):
        logger.warning("tasks.%s: %d training rows are in val or test too, and are left out", request.name, copies)
    return {split: some[: request.limits.get(split)] for split, some in splits.items()} | {"train": train}


def _content(example: Example) -> tuple[object, ...]:
    return example.prompt, example.choices, example.answers
