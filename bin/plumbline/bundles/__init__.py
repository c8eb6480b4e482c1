"""Results that travel: a bundle holds the scores of one model on one data set and a manifest that identifies them."""
