"""Prediction history."""
