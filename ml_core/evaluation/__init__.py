"""How good a model is on rows with a known truth: metrics, and the comparison of two models on the same held-out rows.

Training, gates and monitoring share it. It reads no database: whoever calls it brings the rows and the versions.
"""
