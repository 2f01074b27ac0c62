"""The HTTP edge of the prediction plane: an ASGI application over ``PredictionService``.

This package parses requests, maps errors to status codes, and renders answers. It has no rules about models, tenants
or keys. It is plain ASGI: at several thousand small requests per second, the routing and request objects of a framework
cost more than the predictions.
"""
