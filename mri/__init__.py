"""The imaging domain: k-space, sampling masks, phantoms, readers, datasets, reconstructors, image quality.

Nothing in here knows of federation.
"""
