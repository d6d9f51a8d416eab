"""Sums of dice: a data source and a grader."""
