"""A string: N×T×K logits of K - 1 symbols and CTC's blank (Graves et al., ICML 2006), decoded greedily.

The blank is class 0, as in torch's ``CTCLoss``; labels are strings of the symbols 1 to K - 1. Scored by 1 - CER: edits
are summed over all strings before they are divided by the length of the labels.
"""

import numpy as np

from deploy_kit.accuracy.tasks import Scoring, Task, TaskSettings

BLANK = 0


def greedy_decoded(output: np.ndarray, index: int, settings: TaskSettings) -> tuple[int, ...]:
    """Decode (T, K) logits: the best symbol of each step, repetitions merged, blanks left out."""
    best = output.argmax(axis=1)
    first = np.concatenate([[True], best[1:] != best[:-1]])
    return tuple(int(symbol) for symbol in best[first & (best != BLANK)])


def edit_distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Count the insertions, deletions and substitutions from one string to another (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def edits(decoded: tuple[int, ...], label: tuple[int, ...], settings: TaskSettings) -> np.ndarray:
    """Count edits and length of the label, and whether the whole string is right; (3,) float64."""
    return np.array([edit_distance(decoded, label), len(label), decoded == label], np.float64)


def one_minus_cer(sums: np.ndarray) -> np.ndarray:
    """Compute 1 - CER of sums (…, 3); NaN where labels have no symbol."""
    wrong, length = sums[..., 0], sums[..., 1]
    return np.asarray(1 - np.divide(wrong, length, out=np.full(length.shape, np.nan), where=length > 0))


TASK = Task(
    takes="N×T×K",
    fits=lambda shape: len(shape) == 2 and shape[1] > 1,
    inferred=True,
    scoring=Scoring(
        answer=greedy_decoded,
        agreement_name="decoded strings alike",
        labels="texts",
        counts=edits,
        score=one_minus_cer,
        measure="1 - CER",
        note=lambda settings: f"axes are read as N×T×K, and class {BLANK} as CTC's blank",
    ),
)
