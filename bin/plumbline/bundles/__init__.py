"""Results that travel: a bundle is a folder with the scores of one model on one data set and a manifest that identifies them."""
