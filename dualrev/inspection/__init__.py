"""What a program and its derivative can be asked: costs, pictures, where a NaN came from, values and cotangents in the middle, checks.

Each question has a folder of its own, which its public names come from.
May import: ``functional``, ``sparse`` and what is below.  Start reading at the folder of a question.
"""
