"""Tokens of prompts and choices.

A causal model reads prompt and choice as one text, cut where the prompt's tokens end, as lm-evaluation-harness does. An
encoder-decoder reads the prompt in its encoder, and the choice with its end-of-sequence token in its decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from tasks.language.text.backbone import LanguageBackbone, has_encoder
from tasks.language.text.examples import Example

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example in tokens.

    Attributes:
        prompt: of the prompt, never empty.
        choices: the tokens that are scored, of each choice; () for a place without a choice.
        label: place of the right choice.
    """

    prompt: Tokens
    choices: tuple[Tokens, ...]
    label: int

    @property
    def longest(self) -> int:
        """The number of tokens of the prompt and the longest choice."""
        return len(self.prompt) + max(map(len, self.choices), default=0)


class Encoder:
    """Encodes texts for one model, and checks that they fit into its context.

    Attributes:
        cut: number of prompts that were cut so far.
    """

    def __init__(self, backbone: LanguageBackbone, delimiter: str = " ", longest: int | None = None) -> None:
        """Take a model.

        Args:
            backbone: the model with its tokenizer.
            delimiter: between a prompt and a choice, for causal models.
            longest: prompts are cut to this many tokens: an encoder reads the first ones and the end-of-sequence token,
                a causal model the last ones. None: a prompt that is longer than the context is an error.
        """
        self._tokenizer, self._context = backbone.tokenizer, backbone.context
        self._apart, self._delimiter, self._longest = has_encoder(backbone), delimiter, longest
        self.cut = 0

    def choices(self, example: Example) -> Encoded:
        """Encode an example's prompt and choices.

        Raises:
            ValueError: if they are longer than the model's context, or a choice has no tokens; the row is named.
        """
        before = self._encode(example.prompt)
        choices = tuple(() if text is None else self._after(before, example.prompt, text) for text in example.choices)
        prompt = self._fitted(before, example, max(map(len, choices), default=0))
        for text, tokens in zip(example.choices, choices, strict=True):
            if text is not None and not tokens:
                raise ValueError(f"{example.where}: the choice {text!r} has no tokens after its prompt")
        return Encoded(prompt, choices, example.label)

    def prompt(self, example: Example, room: int) -> Tokens:
        """Encode an example's prompt, cut if it may be.

        Args:
            example: with the prompt.
            room: tokens that must fit into the context after it, for a causal model.

        Raises:
            ValueError: if it is too long.
        """
        return self._fitted(self._encode(example.prompt), example, room)

    def _fitted(self, tokens: Tokens, example: Example, room: int) -> Tokens:
        tokens = tokens if self._apart else tokens or start_token(self._tokenizer)
        tokens = self._cut(tokens)
        most = self._context if self._apart or self._context is None else self._context - room
        if most is not None and len(tokens) > most:
            rest = "" if self._apart else f", besides {room} for the longest choice or the answer"
            raise ValueError(
                f"{example.where}: its prompt has {len(tokens)} tokens, and the model takes at most {most}{rest}; "
                "set options.max_prompt_tokens, or remove the row"
            )
        return tokens

    def _cut(self, tokens: Tokens) -> Tokens:
        if self._longest is None or len(tokens) <= self._longest:
            return tokens
        self.cut += 1
        if not self._apart:
            return tokens[-self._longest :]
        end = tokens[-1:] if tokens[-1] == self._tokenizer.eos_token_id else ()
        return tokens[: self._longest - len(end)] + end

    def _encode(self, text: str) -> Tokens:
        tokens = tuple(self._tokenizer(text, verbose=False)["input_ids"])
        if not self._apart and tokens[-1:] == (self._tokenizer.eos_token_id,) and len(tokens) > 1:
            return tokens[:-1]  # some tokenizers end every text, but the choice continues this one
        return tokens

    def _after(self, before: Tokens, prompt: str, choice: str) -> Tokens:
        """Return the tokens of a choice after a prompt, whose own tokens are `before`."""
        if not self._apart:
            return self._encode(f"{prompt}{self._delimiter}{choice}")[len(before) :]
        tokens = tuple(self._tokenizer(text_target=choice, verbose=False)["input_ids"])
        end = self._tokenizer.eos_token_id
        return tokens if tokens[-1:] == (end,) else (*tokens, end)


def start_token(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Return the token in front of a text, in a tuple: a model predicts nothing without one."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return (int(first),)


def padded(rows: Sequence[Tokens], pad: int) -> list[list[int]]:
    """Pad rows on the right to the longest."""
    width = max(map(len, rows))
    return [[*row, *[pad] * (width - len(row))] for row in rows]
