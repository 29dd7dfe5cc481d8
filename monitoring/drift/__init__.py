"""Drift: what a model is asked and answers, beside what it was trained on, beside earlier weeks, and canary beside stable.

Runs in the monitoring environment; ``detectors`` and ``online`` are the only modules anywhere that import alibi-detect.
"""
