"""``DataProcessor`` with a cache: the same features, whoever computed them."""

from __future__ import annotations

import copy
import pickle

import pandas as pd
import pytest

from ml_core import DataProcessor
from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.data import processor as module
from support.tables import tickets

TEXTS = [None, "", "two words", "three more words", "naïve café"]
FRAME = pd.DataFrame({"subject": TEXTS, "opened": pd.date_range("2026-01-01", periods=5), "n": range(5)})
KINDS = {"subject": "text", "opened": "datetime", "n": "number"}


def extracted(cache, frame=FRAME, tenant_id="acme"):
    processor = DataProcessor(tenant_id, kinds=KINDS, cache=cache)
    processor.preprocess(FRAME)
    return processor.extract_features(frame)


def test_cached_features_are_those_that_were_computed(monkeypatch):
    """Names, values and types, with missing values and an index of the caller's; a hit computes nothing."""
    frame = FRAME.set_axis([5, 3, 1, 2, 4])
    cache, wanted = CacheMechanism(), extracted(None, frame)
    pd.testing.assert_frame_equal(extracted(cache, frame), wanted)
    monkeypatch.setattr(module, "text_features", of_no_row(module.text_features))
    pd.testing.assert_frame_equal(extracted(cache, frame), wanted)
    assert cache.statistics().hits == 1


def of_no_row(compute):
    def computed(name, texts):
        assert len(texts) == 0, "computed again"
        return compute(name, texts)

    return computed


@pytest.mark.parametrize("other", [{"tenant_id": "globex"}, {"frame": FRAME.assign(subject=["None", *TEXTS[1:]])}])
def test_other_texts_and_other_tenants_are_computed(other):
    """Each of them is part of the key; a missing text is none that says so."""
    cache = CacheMechanism()
    extracted(cache)
    pd.testing.assert_frame_equal(extracted(cache, **other), extracted(None, **other))
    assert cache.statistics().hits == 0


def test_what_is_returned_may_be_changed():
    """It is the caller's, and not the cache's."""
    cache = CacheMechanism()
    for _ in range(2):
        features = extracted(cache)
        features["subject_words"] += 1
    assert extracted(cache)["subject_words"].tolist()[2:] == [2.0, 3.0, 2.0]


def test_a_copy_does_not_take_the_cache_along():
    """So a processor with a cache can be a part of a model, and no address with a password is stored in one."""
    processor = DataProcessor(cache=CacheMechanism(CacheConfig(url="redis://:secret@127.0.0.1:1")))
    frame = tickets(50).drop(columns=["category"])
    processor.preprocess(frame)
    stored = pickle.dumps(processor)
    assert b"secret" not in stored
    wanted = processor.extract_features(frame)  # no server answers, so they are computed
    for other in (pickle.loads(stored), copy.deepcopy(processor)):
        pd.testing.assert_frame_equal(other.extract_features(frame), wanted)
