"""One page a file: each has one function, ``page``."""
