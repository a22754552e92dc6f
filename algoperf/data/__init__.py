"""Data on its way to a model: where rows come from, how text becomes tokens, how rows become
batches.
"""
