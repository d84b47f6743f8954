"""Loops around the model: training, evaluation and work on whole folders.

The modules are imported one by one (`from linocut.engine.evaluate import evaluate`), so none pays for another.
"""
