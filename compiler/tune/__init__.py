"""Tuning: find by measuring which decisions make each kernel of a network fastest on one device."""
