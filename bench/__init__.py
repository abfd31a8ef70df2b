"""Benchmarks: what they measure, and how to repeat it, stands in each module."""
