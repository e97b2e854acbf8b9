"""Losses on triplets and quadruplets of embeddings."""
