"""The metric of SQuAD (Rajpurkar et al., 2016): exact match and F1 over words, after normalisation."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_score(answer: str, references: Sequence[str]) -> float:
    """Return the mean of exact match and F1, each the best over the references, in [0, 1].

    Example:
        >>> squad_score("The cat.", ["cat"]), squad_score("black cat", ["white cat"]), squad_score("dog", ["cat"])
        (1.0, 0.25, 0.0)
    """
    exact = max(float(normalised(answer) == normalised(reference)) for reference in references)
    return (exact + max(_f1(answer, reference) for reference in references)) / 2


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, its words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(answer: str, reference: str) -> float:
    words, expected = normalised(answer).split(), normalised(reference).split()
    common = sum((Counter(words) & Counter(expected)).values())
    if not common:
        return float(words == expected)  # both empty: as in SQuAD 2
    precision, recall = common / len(words), common / len(expected)
    return 2 * precision * recall / (precision + recall)
