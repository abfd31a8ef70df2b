"""Runs the checks of ``unlearning/verification`` on the models of a simulation, with everybody's data."""
