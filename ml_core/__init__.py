"""ML Core: multi-tenant machine learning for tabular and short-text models."""
