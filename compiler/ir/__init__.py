"""What every stage that works on graphs shares: a rewriter, and constants as numpy arrays.

No stage of its own: it knows Relax, and nothing of Kiln.
"""
