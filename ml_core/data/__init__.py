"""Data on its way to a model: reading files, inferring what columns hold, canonical columns, encoding and splits.

Nothing that talks to a database, a model store or Ray belongs here, and no estimator: what is fitted here turns a table
into a matrix.
"""
