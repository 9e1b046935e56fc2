"""One run: what it is set to, where its features come from, training, evaluation, and what the figures say."""
