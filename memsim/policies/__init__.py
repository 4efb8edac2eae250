"""Programming policies: which weight is programmed where, and what is stored there."""
