"""Programs of small arrays on the host: numpy in place of the compiler, which takes longer than they do.

A program is traced as any other, so that its derivative comes from the table of rules; what stands here says only how numpy evaluates
each primitive of jax.  ``primitives`` and the modules beside it have one function for each primitive; ``programs`` puts those of a
program together.  May import: ``_jax``.  Start reading at :mod:`dualrev.eager.host.programs`.
"""
