"""Random edits to random small projects, against the plain uncached run of the same project.

`python -m tests.fuzz --edits 20000` edits; `--plant all` breaks the reader of code in one place
after the other and asks whether the edits find it.
"""
