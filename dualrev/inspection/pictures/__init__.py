"""Pictures of our own: shapes on a sheet, written as SVG or drawn as PNG; the layered layout of a graph; colours of heat.

May import: ``_jax``, ``errors``, ``linear``.  Start reading at :mod:`dualrev.inspection.pictures.sheet`; graphs are laid out by
:mod:`dualrev.inspection.pictures.layers`.
"""
