"""Trainings on a Ray cluster. Beside ``deployments``, only this package imports Ray."""
