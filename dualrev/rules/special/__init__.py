"""Rows of the special functions of mathematics, and the series and integrals of derivatives without a closed form.

May import: what :mod:`dualrev.rules` may.  Start reading at :mod:`dualrev.rules.special.functions`.
"""
