"""What of a document is kept: the published steps for training data of code.

`rules.py` lists the steps, `clean.py` takes a document through them. The limits are those of
CodeParrot (2021), The Stack and StarCoder (Li et al., 2023, section 3) and The Stack v2 (Lozhkov et
al., 2024, section 4), where nothing else is said.
"""
