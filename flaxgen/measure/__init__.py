"""Evaluation: pictures against pictures, by a model of their features."""
