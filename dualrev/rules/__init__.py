"""The table: one row for each primitive, one file for each family (see :mod:`dualrev.rules.table` for the forms)."""
