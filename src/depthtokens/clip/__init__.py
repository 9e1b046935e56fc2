"""The frozen CLIP, through open_clip."""
