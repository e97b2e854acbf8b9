"""Transformations of embeddings and distances after training."""
