"""The HTTP edge of the prediction plane: an ASGI application over ``PredictionService``.

It is plain ASGI, without a framework's routing, middleware and request objects: at several thousand small answers a
second those cost more than the answers. Parsing, status codes and rendering live here and nowhere below. No rule about
models, tenants or keys belongs here.
"""
