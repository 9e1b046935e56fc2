"""Patch features that are computed once, kept on disk in a store, and read by every run."""
