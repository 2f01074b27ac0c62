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

Two tables are compared by their profiles alone (``drift_between``). What these leave open, such as the share of rows
below an edge that only one of them has, is taken as unchanged as far as it can be. So the statistic and the index are
never too large, and a change that the profiles do not prove is not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ml_core.data.profile import texts
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import ColumnProfile, TableProfile
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
    return _judged([_compare(*pair) for pair in pairs])


def drift_between(first: TableProfile, second: TableProfile) -> list[ColumnDrift]:
    """Compare the columns that two tables share, the second against the first, with a correction for their number.

    No row is read: a column costs the bins of its profiles, about 0.2 ms. Where the second table has the rows of the
    first, too, they differ by less than two samples do, and the p-values are too large.
    """
    others = {column.name: column for column in second.columns}
    shared = [(column, others[column.name]) for column in first.columns if column.name in others]
    return _judged([_compare_profiles(*pair) for pair in shared])


def _judged(compared: Sequence[ColumnDrift]) -> list[ColumnDrift]:
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
    is_ordered = not profile.values and profile.kind in (ColumnKind.NUMBER, ColumnKind.TEXT)
    before, now, unseen = _binned(profile, present)
    missing = np.array([profile.missing, len(live) - len(present)], dtype=np.float64)
    result = _measured(result, missing, before, now, is_ordered=is_ordered)
    return replace(result, unseen=unseen / len(live) if profile.values else None)


def _compare_profiles(first: ColumnProfile, second: ColumnProfile) -> ColumnDrift:
    kind, rows, live = first.kind or second.kind, first.count + first.missing, second.count + second.missing
    result = ColumnDrift(first.name, kind, reference_rows=rows, live_rows=live)
    if second.kind not in (None, kind):
        return replace(result, note=f"It was a {first.kind} and is a {second.kind} now.")
    if min(rows, live) < MIN_ROWS:
        return replace(result, note=f"There are {min(rows, live)} rows; {MIN_ROWS} are needed.")
    missing = np.array([first.missing, second.missing], dtype=np.float64)
    is_listed = kind in (ColumnKind.CATEGORY, ColumnKind.BOOLEAN) or bool(first.values and second.values)
    if is_listed:
        found = dict(second.values)
        before, now, unseen = _by_value(first, found, second.count, unlisted=second.other)
        result = replace(result, unseen=unseen / live if first.values else None)
    elif kind in (ColumnKind.NUMBER, ColumnKind.TEXT):
        before, now = _by_edges(first, second)
    else:  # dates, or no value in either
        before, now = np.array([float(first.count)]), np.array([float(second.count)])
    is_ordered = not is_listed and kind in (ColumnKind.NUMBER, ColumnKind.TEXT)
    return _measured(result, missing, before, now, is_ordered=is_ordered)


def _measured(result: ColumnDrift, missing: Counts, before: Counts, now: Counts, *, is_ordered: bool) -> ColumnDrift:
    """The index and the test of rows by bin; ``missing``: the rows without a value, before and now."""
    rows = np.array([result.reference_rows, result.live_rows], dtype=np.float64)
    test, statistic, p = _ks(before, now) if is_ordered else _chi2(before, now)
    if missing.any():
        absent = _chi2(*np.stack([missing, rows - missing], axis=1))
        p = min(1.0, 2 * min(p, absent[2]))  # Bonferroni: of two tests
        before, now = np.append(before, missing[0]), np.append(now, missing[1])
    return replace(
        result,
        psi=_psi(before, now),
        psi_by_chance=(len(before) - 1) * (1 / before.sum() + 1 / now.sum()),
        test=test,
        statistic=statistic,
        p_value=p,
        missing_before=float(missing[0] / rows[0]),
        missing_now=float(missing[1] / rows[1]),
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
        return _by_value(profile, {str(value): int(count) for value, count in tally.items()}, len(present))
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


def _by_value(
    profile: ColumnProfile, found: Mapping[str, int], rows: int, *, unlisted: int = 0
) -> tuple[Counts, Counts, int]:
    """Rows by value, and how many of those found have one that the profile does not list.

    Args:
        profile: Of the first table; its rare values share a bin.
        found: Value → rows, now.
        rows: Rows with a value, now.
        unlisted: Rows, now, of values that are not found, each in no more rows than the rarest that is. One that was
            common before is taken to have kept its share, as far as it can.
    """
    most = min(found.values(), default=0) if unlisted else 0
    common = {value: count for value, count in profile.values if count >= _COMMON}
    kept = {value: min(most, count * rows / profile.count) for value, count in common.items() if value not in found}
    scale = min(1.0, unlisted / (sum(kept.values()) or 1.0))
    bins = [(count, found[value] if value in found else kept[value] * scale) for value, count in common.items()]
    before, now = np.array(bins, dtype=np.float64).reshape(-1, 2).T
    others = profile.count - before.sum(), max(0.0, rows - now.sum())
    if max(others) > 0.5:
        before, now = np.append(before, others[0]), np.append(now, others[1])
    unseen = sum(found.values()) - sum(found.get(value, 0) for value, _ in profile.values)
    return before, now, unseen


def _by_edges(first: ColumnProfile, second: ColumnProfile) -> tuple[Counts, Counts]:
    """Rows of two profiles between the same points: the edges of whichever has more of them, and infinite ones.

    Of the other profile, the share of rows below such a point lies between those below its two nearest edges. Both are
    taken as equal where they can be, and else as near as they can be.
    """
    points = np.array(max(first.edges, second.edges, key=len)[1:-1])
    if not len(points):
        points = np.union1d(first.edges, second.edges)[1:]
    bounds = [_shares_below(each, points) for each in (first, second)]
    assumed = np.maximum(bounds[0][0], bounds[1][0])
    shares = [np.concatenate([[0.0], np.clip(assumed, low, high), [1.0]]) for low, high in bounds]
    before, now = (np.diff(of) * (each.count - each.infinite) for of, each in zip(shares, (first, second), strict=True))
    if first.infinite or second.infinite:
        before, now = np.append(before, first.infinite), np.append(now, second.infinite)
    return before, now


def _shares_below(profile: ColumnProfile, points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the largest share of a profile's numbers that can be less than each point."""
    if not profile.edges:
        return np.zeros(len(points)), np.zeros(len(points))
    counts = np.array(profile.bin_counts or (profile.count - profile.infinite,), dtype=np.float64)
    # The last bin includes its upper edge, and all others do not.
    edges = np.append(profile.edges[: len(counts)], np.nextafter(profile.edges[-1], np.inf))
    below = np.append(0.0, np.cumsum(counts)) / counts.sum()
    low = np.append(0.0, below)[np.searchsorted(edges, points, side="right")]
    high = np.append(below, 1.0)[np.searchsorted(edges, points, side="left")]
    return low, high


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
