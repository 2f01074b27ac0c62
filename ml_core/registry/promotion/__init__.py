"""Promotion: what an environment serves, the moves that change it, and the rules for them.

Pointers and their history, rollouts, gates, approvals and protected environments.
"""
