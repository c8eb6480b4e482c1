"""From the scores of single runs to the tables a reader compares."""
