"""The experiments of the paper, and the questions it leaves open: what is computed beyond the score table."""
