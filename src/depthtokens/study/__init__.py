"""What was learned, and how it compares."""
