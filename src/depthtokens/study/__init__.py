"""What was learned: which words lie near it, what shape it has, what each token is worth, and how far words alone can go.

What stands here loads no torch.
"""

MAIN = "abs_rel"
"""The metric that rows are sorted by, drawn with and told apart by."""
TOKENS, BEST, WORDS, CONTROL = "tokens", "best words", "words", "control"
"""Kinds of rows that are compared: the tokens under study, the best words that a search found, a human scale, and what never looks at
the image. The rows of the first two kinds are called as their kind. The other kinds of rows are those of `study.ablations`."""
BEST_OF = {1: BEST, 2: "best pairs", 3: "best triples"}
"""Rows of the kind `BEST`: the best found with so many vocabulary entries per bin at most."""
