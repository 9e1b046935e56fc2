"""Models outside of training: as one file that needs no torch."""
