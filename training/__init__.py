"""Training scripts on top of memsim; not part of the installed package."""
