"""plumbline from Python: the pipeline's own steps on a screen in memory, for one's own embeddings and training loops."""
