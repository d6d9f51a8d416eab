"""Interfaces between the node and its services, and the records that pass there: a module for each owner."""
