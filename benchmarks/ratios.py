"""Ratios of latencies measured in turns, with intervals that respect what varies: the round and the recompile."""

import numpy as np

Samples = tuple[tuple[tuple[float, ...], ...], ...]
"""Milliseconds by recompile, round and run."""

_RESAMPLES = 4000


def turns_ms(samples: Samples) -> np.ndarray:
    """Return the fastest run of each turn: (recompiles, rounds) in ms.

    The minimum, because whatever else runs on the machine can only add.
    """
    return np.array([[min(turn) for turn in rounds] for rounds in samples], np.float64)


def least_ms(samples: Samples) -> float:
    """Return the fastest run of all."""
    return float(turns_ms(samples).min())


def fastest(samples: dict[str, Samples], among: tuple[str, ...]) -> str:
    """Name the fastest of some candidates of a race: by its median place against the mean of all, round by round.

    Args:
        samples: Samples of every candidate of the race, by name; same rounds.
        among: The names to choose from, at least one.
    """
    turns = {name: np.log(turns_ms(found)) for name, found in samples.items()}
    mean = np.mean(list(turns.values()), axis=0)
    return min(among, key=lambda name: float(np.median(turns[name] - mean)))


def interval(baseline: Samples, candidate: Samples, *, scale: float = 1.0, seed: int = 0) -> tuple[float, float, float]:
    """Compare two latencies measured in turns, over several recompiles.

        ratio of a round = scale · fastest run of the baseline's turn / fastest run of the candidate's turn

    Rounds of one recompile are not independent: a compiled instance can be slow as a whole. The bootstrap therefore
    draws recompiles first and rounds within them second (Davison and Hinkley, Bootstrap Methods and their
    Application, section 3.8). With one recompile the interval is over its rounds alone.

    Args:
        baseline: Its samples.
        candidate: Its samples, of the same rounds.
        scale: Multiplies every ratio.
        seed: Seed of the bootstrap.

    Returns:
        The median over all rounds, and its 95 % percentile interval.

    Raises:
        ValueError: The two were not measured in the same rounds.
    """
    a, b = turns_ms(baseline), turns_ms(candidate)
    if a.shape != b.shape:
        raise ValueError(f"not the same rounds: {a.shape} and {b.shape}")
    ratios = scale * a / b
    generator = np.random.default_rng(seed)
    n_recompiles, n_rounds = ratios.shape
    recompiles = generator.integers(0, n_recompiles, (_RESAMPLES, n_recompiles, 1))
    rounds = generator.integers(0, n_rounds, (_RESAMPLES, n_recompiles, n_rounds))
    medians = np.median(ratios[recompiles, rounds].reshape(_RESAMPLES, -1), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)
