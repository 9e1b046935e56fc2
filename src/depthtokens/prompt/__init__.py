"""What is said to CLIP."""
