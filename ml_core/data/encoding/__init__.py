"""Encoders: canonical columns to the numeric matrix that an estimator takes, one file per column kind.

Each encoder holds all columns of its kind, so that a row costs a few array operations and no data frame. State is plain
numbers, strings, lists and numpy arrays, so that skops can write and audit it. Inference of kinds and reading of raw
values do not belong here.
"""
