"""Data on its way to a model: reading files, inferring what columns hold, canonical columns, encoding and splits.

Estimators, and code that uses a database, an artifact store or Ray, do not belong here: what is fitted here turns a
table into a matrix.
"""
