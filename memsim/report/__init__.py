"""What people see: tables, pages, JSON, units."""
