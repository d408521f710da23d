"""Computations, in TVM's tensor expressions, that the schedule rules know.

Each marks its main block with ``kiln.rule``, the name of the rule in `compiler.schedule` that schedules
it, so that a rule finds its block whatever was fused around it.
"""

RULE = "kiln.rule"
"""The block attribute that names a schedule rule."""

GROUPS = "kiln.groups"
"""The block attribute that counts the groups of a convolution."""

INJECTIVE = 2
"""TVM's operator pattern of a kernel that is not fused to a reduction before it."""

REDUCTION = 3
"""TVM's operator pattern of a kernel that elementwise operators before it are fused into."""

OPAQUE = 8
"""TVM's operator pattern of a kernel that nothing is fused with."""

OUT_ELEMWISE_FUSABLE = 4
"""TVM's operator pattern of a kernel that takes elementwise operators into its epilogue."""

ELEMENTWISE = "kiln.elementwise"
"""The attribute of a PrimFunc that TVM should fuse after another kernel, although it also reads what is
broadcast in a way that TVM does not see."""
