"""What runs on Ray. Beside ``deployments``, only this package imports it."""
