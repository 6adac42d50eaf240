"""The two reward models of the summary task of rewarded soups (Rame et al., 2023), which figure 4 of LiNeS uses.

Inputs are those of alexrame/rewardedsoups (llama/tasks/summary.py, `transform_text_summary`, commit d345d3c): the
summary up to and including its first full stop, followed by the post.
"""

from tasks.language.rewards.classifier import Classifier
from tasks.language.rewards.texts import Form


class Gpt2Summary(Classifier):
    """`reward/gpt2-summary`: how much humans would like the summary; the logit of a GPT-2 with one label.

    Its training inputs were `SUMMARY <|endoftext|> POST` (trl, examples/summarization/scripts/reward_summarization.py),
    which rewardedsoups uses too.
    """

    model: str = "hf:Tristan/gpt2_reward_summarization"
    """hf:Tristan/gpt2_reward_summarization, or a folder with a copy."""
    inputs: Form = "{completion} <|endoftext|> {source}"
    first_sentence: bool = True


class BartFaithful(Classifier):
    """`reward/bart-faithful`: whether all of the summary is in the post; the logit of a BART's label FAITHFUL.

    A BART tokenizer puts two separators between the sequences of a pair, so this is the pair (summary, post) of the
    model's card. rewardedsoups reports this logit; its PPO maximises the difference of both labels' (`reward_formats
    1-0`), which is `minus: HALLUCINATED`.
    """

    model: str = "hf:CogComp/bart-faithful-summary-detector"
    """hf:CogComp/bart-faithful-summary-detector, or a folder with a copy."""
    label: str | int | None = "FAITHFUL"
    inputs: Form = "{completion}</s></s>{source}"
    first_sentence: bool = True
