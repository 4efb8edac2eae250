"""A chip in service: what wears out, when, and what that costs."""
