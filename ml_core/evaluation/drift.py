"""Drift of live rows against the profile of training: which columns changed, by how much, and whether by chance.

Two things are asked of a column. *How much* did it change? The population stability index (Siddiqi, Credit Risk
Scorecards, 2006), PSI = Σ (pᵢ - qᵢ) ln(pᵢ / qᵢ) over the bins of the profile, or its categories, and a bin of missing
values. *Can it be chance?* The test of Kolmogorov and Smirnov for what has bins, the χ² test for what has categories,
and the χ² test of the share of missing values. A column drifted where both say so: with many rows every change is
significant, and with few every index is large.

If nothing changed, the PSI of n and m rows in k bins has the expectation (k - 1) (1 / n + 1 / m) and is distributed as
(1 / n + 1 / m) χ² of k - 1 degrees (Yurdakul, Statistical Properties of Population Stability Index, 2018), so the
expectation is subtracted before the index is compared with ``PSI_ALERT``.

The distribution function of training is known at the edges of its bins, the quantiles at 0, 5, … 100 %. The statistic
of Kolmogorov and Smirnov is the largest difference at these, at most 0.05 less than that at all values. So its p-value
is never too small, and a change within a bin, of a twentieth of the rows, is not seen.

Of a text its length is compared. Of a date only whether it is missing: dates of rows are later than those of the
training, always, and no alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ml_core.data.profile import texts
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import ColumnProfile
from ml_core.domain.quality import ColumnDrift, Verdict

MIN_ROWS = 100
"""Of training and of the live window, each: five in each of 20 bins, as few as the χ² approximation bears (Cochran,
Biometrics 10, 1954)."""
PSI_ALERT = 0.2
"""Above what chance makes; usual bounds are 0.1 for a small change and 0.25 for a large one. A normally distributed
column reaches it where its mean moves by 0.45 standard deviations."""
FALSE_DISCOVERY_RATE = 0.01
"""Of the columns that are called significant, the share that is expected not to have changed."""
_MIN_EXPECTED = 5.0  # rows of a cell of the χ² test (Cochran); smaller ones are put together
_COMMON = 20
"""Rows of training from which a category has a bin of its own; rarer and unknown ones share one. Of many rare
categories a sample shows some too often and others not at all, which no other sample repeats: with 20 the index is 0.03
too large at most."""
_PRIOR = 0.5  # of a row in each bin, so that the index of an empty one is finite (Jeffreys)

Counts = NDArray[np.float64]


def drift(pairs: Sequence[tuple[ColumnProfile | None, ColumnDrift, NDArray[Any]]]) -> list[ColumnDrift]:
    """Compare columns, with a correction for their number.

    Args:
        pairs: Of each column its profile in training (None: there is none), a result with its name and kind, and the
            ``(n,)`` canonical live values.

    Returns:
        The completed results in the same order.
    """
    compared = [_compare(*pair) for pair in pairs]
    tested = [each for each in compared if each.p_value is not None]
    adjusted = benjamini_hochberg([each.p_value for each in tested if each.p_value is not None])
    judged = iter([_judge(each, p) for each, p in zip(tested, adjusted, strict=True)])
    return [each if each.p_value is None else next(judged) for each in compared]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those up to q are a set with a false discovery rate of at most q.

    Benjamini and Hochberg, Journal of the Royal Statistical Society B 57, 1995; also valid for positively dependent
    columns (Benjamini and Yekutieli, 2001).
    """
    given = np.asarray(p_values, dtype=np.float64)
    order, count = np.argsort(given), len(given)
    scaled = given[order] * count / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(p) for p in adjusted]


def _compare(profile: ColumnProfile | None, result: ColumnDrift, live: NDArray[Any]) -> ColumnDrift:
    rows = 0 if profile is None else profile.count + profile.missing
    result = replace(result, live_rows=len(live), reference_rows=rows)
    if profile is None or (profile.kind is not result.kind and profile.count) or not _is_sound(profile):
        return replace(result, note="Training has no profile of it.")
    if min(len(live), rows) < MIN_ROWS:
        return replace(result, note=f"There are {min(len(live), rows)} rows; {MIN_ROWS} are needed.")
    present = live[~pd.isna(live)]
    missing = np.array([profile.missing, len(live) - len(present)], dtype=np.float64)
    before, now, unseen = _binned(profile, present)
    is_ordered = not profile.values and profile.kind in (ColumnKind.NUMBER, ColumnKind.TEXT)
    test, statistic, p = _ks(before, now) if is_ordered else _chi2(before, now)
    if missing.any():
        absent = _chi2(np.array([missing[0], profile.count]), np.array([missing[1], len(present)]))
        p = min(1.0, 2 * min(p, absent[2]))  # Bonferroni: of two tests
        before, now = np.append(before, missing[0]), np.append(now, missing[1])
    return replace(
        result,
        psi=_psi(before, now),
        psi_by_chance=(len(before) - 1) * (1 / before.sum() + 1 / now.sum()),
        test=test,
        statistic=statistic,
        p_value=p,
        missing_before=float(missing[0] / rows),
        missing_now=float(missing[1] / len(live)),
        unseen=unseen / len(live) if profile.values else None,
    )


def _is_sound(profile: ColumnProfile) -> bool:
    """Whether the counts of a profile belong together; who records a run of their own may store any."""
    counts = [*profile.bin_counts, *(count for _, count in profile.values), profile.other, profile.missing]
    has_bins = len(profile.bin_counts) == max(len(profile.edges) - 1, 0)
    return has_bins and min(counts) >= 0 and list(profile.edges) == sorted(set(profile.edges)) and profile.count >= 0


def _judge(result: ColumnDrift, adjusted: float) -> ColumnDrift:
    excess = (result.psi or 0.0) - (result.psi_by_chance or 0.0)
    is_drifted = adjusted <= FALSE_DISCOVERY_RATE and excess >= PSI_ALERT
    return replace(result, adjusted_p_value=adjusted, verdict=Verdict.ALERT if is_drifted else Verdict.OK)


def _binned(profile: ColumnProfile, present: NDArray[Any]) -> tuple[Counts, Counts, int]:
    """Rows with a value by bin or category, of training and now; and how many now have an unknown category."""
    if profile.kind is ColumnKind.DATETIME:
        return np.array([float(profile.count)]), np.array([float(len(present))]), 0
    if profile.kind is ColumnKind.TEXT:
        present = np.array([len(text) for text in present], dtype=np.float64)
    if profile.values:
        tally = texts(present, profile.kind or ColumnKind.CATEGORY).value_counts()
        common = [(count, int(tally.get(value, 0))) for value, count in profile.values if count >= _COMMON]
        bins = np.array(common, dtype=np.float64).reshape(-1, 2)
        others = np.array([profile.count, len(present)]) - bins.sum(axis=0)
        if others.any():
            bins = np.vstack([bins, others])
        unseen = len(present) - int(sum(tally.get(value, 0) for value, _ in profile.values))
        return bins[:, 0], bins[:, 1], unseen
    edges = np.array(profile.edges)
    if not len(edges):  # no value in training
        return np.array([0.0]), np.array([float(len(present))]), 0
    if len(edges) == 1:
        equal = float(np.count_nonzero(present == edges[0]))
        return np.array([float(profile.count), 0.0]), np.array([equal, len(present) - equal]), 0
    # What lies beyond the range of training is in the outer bins.
    position = np.clip(np.searchsorted(edges, present.astype(np.float64), side="right") - 1, 0, len(edges) - 2)
    counts = np.array(profile.bin_counts, dtype=np.float64)
    return counts, np.bincount(position, minlength=len(counts)).astype(np.float64), 0


def _psi(before: Counts, now: Counts) -> float:
    p, q = ((counts + _PRIOR) / (counts.sum() + _PRIOR * len(counts)) for counts in (now, before))
    return float(np.sum((p - q) * np.log(p / q)))


def _ks(before: Counts, now: Counts) -> tuple[str, float, float]:
    """The statistic at the edges of the bins, and its asymptotic p-value (Smirnov, 1948)."""
    n, m = before.sum(), now.sum()
    if not n or not m:
        return "ks", 0.0, 1.0  # all are missing on one side, which the share of missing values shows
    distance = float(np.abs(np.cumsum(before) / n - np.cumsum(now) / m).max())
    return "ks", distance, float(special.kolmogorov(np.sqrt(n * m / (n + m)) * distance))


def _chi2(before: Counts, now: Counts) -> tuple[str, float, float]:
    """The χ² test of homogeneity of two samples, after cells of few rows were put together."""
    n, m = before.sum(), now.sum()
    if not n or not m:
        return "chi2", 0.0, 1.0
    expected = (before + now) * min(n, m) / (n + m)
    small = expected < _MIN_EXPECTED
    if small.any():
        before, now = (np.append(each[~small], each[small].sum()) for each in (before, now))
        used = before + now > 0
        before, now = before[used], now[used]
    statistic = float(np.sum(np.square(np.sqrt(m / n) * before - np.sqrt(n / m) * now) / (before + now)))
    degrees = len(before) - 1
    return "chi2", statistic, float(special.chdtrc(degrees, statistic)) if degrees else 1.0
