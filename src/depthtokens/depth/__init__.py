"""What comes out: depth."""
