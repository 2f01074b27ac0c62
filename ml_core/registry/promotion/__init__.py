"""Promotion: what an environment serves, by which moves, and under which rules.

Pointers and their history, rollouts, gates, approvals and protected environments.
"""
