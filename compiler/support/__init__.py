"""Errors, progress, files and signatures shared by every stage. Imports nothing else of Kiln's."""
