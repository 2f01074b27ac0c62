"""The entry points that Ray imports by path or starts as programs: cells, the control API and the ingress.

This package has no rules about models or tenants.
"""
