"""From Python source to token files: find projects, clean, split, tokenize, verify."""
