"""What runs on Ray. Beside ``deployments``, only this package imports it.

``execution`` connects and turns a strategy into an ``Execution``; ``forest`` grows slices of a forest, ``shards`` and
``merging`` fit on row groups that no process holds together: what they fit equals what one process fits.
``boosting`` is LightGBM through Ray Train, ``search`` has the trials of a search, ``ordered`` the actors of a
prediction. ``ml_core.training.strategies`` chooses.
"""
