"""Patch features computed once, kept on disk, read by every run."""
