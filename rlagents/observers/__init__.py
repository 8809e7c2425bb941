"""Observers: they watch a run and write down what they see; they never change it."""
