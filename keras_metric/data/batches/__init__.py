"""Batch sources: balanced batches, pairs, triplets, quadruplets, views and streams."""
