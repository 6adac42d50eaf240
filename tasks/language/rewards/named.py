"""The two reward models of the summary task of rewarded soups (Rame et al., 2023), which figure 4 of LiNeS uses.

Inputs are made as alexrame/rewardedsoups makes them (llama/tasks/summary.py, `transform_text_summary`, commit d345d3c):
the summary comes first, is cut at its first full stop, which is put back, and is followed by the post.
"""

from tasks.language.rewards.classifier import Classifier
from tasks.language.rewards.texts import Form


class Gpt2Summary(Classifier):
    """`reward/gpt2-summary`: how well people would like the summary; the logit of a GPT-2 with one label.

    It was trained on `SUMMARY <|endoftext|> POST` (trl, examples/summarization/scripts/reward_summarization.py), and
    rewardedsoups asks the same of it.
    """

    model: str = "hf:Tristan/gpt2_reward_summarization"
    """hf:Tristan/gpt2_reward_summarization, or a folder with the same."""
    inputs: Form = "{completion} <|endoftext|> {source}"
    first_sentence: bool = True


class BartFaithful(Classifier):
    """`reward/bart-faithful`: whether the summary says only what the post says; the logit of a BART's label FAITHFUL.

    The two separators are those that a BART tokenizer puts between the sequences of a pair, so this is the pair
    (summary, post) of the model's card. rewardedsoups reports this logit; its PPO maximises the difference of both
    (`reward_formats 1-0`), which is `minus: HALLUCINATED`.
    """

    model: str = "hf:CogComp/bart-faithful-summary-detector"
    """hf:CogComp/bart-faithful-summary-detector, or a folder with the same."""
    label: str | int | None = "FAITHFUL"
    inputs: Form = "{completion}</s></s>{source}"
    first_sentence: bool = True
