"""The demonstration on rendered scenes."""

from pathlib import Path

TOKENS = Path(__file__).parent / "tokens.safetensors"
"""The demonstration's "learned-7" on the bundled CLIP, which come with the package; tools/demo_tokens.py writes them."""
