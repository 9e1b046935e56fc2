"""Runs: configuration, training, evaluation."""
