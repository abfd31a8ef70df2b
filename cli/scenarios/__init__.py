"""Situations a consortium gets into, each declared in a file and played through."""
