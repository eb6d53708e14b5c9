"""From Python source to token files.

run.py         the command line; cluster.py the same on many machines
sources/       where text comes from; limits.py is how much of it
cleaning/      what is kept of a file
shards.py      a part of a source, cleaned by one of workers.py
build.py       from shards to a data directory: near.py finds near copies, split.py the projects
               that are held out, selection.py what is kept and in which order
documents.py   which tokens are which file
verify.py, show.py, report.py
               a data directory checked, looked into, drawn
train_tokenizer.py
               a vocabulary for Python
"""
