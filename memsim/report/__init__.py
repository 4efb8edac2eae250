"""Reports that people see: tables, pages, JSON, units."""

from memsim.report.documents import to_json
from memsim.report.page import to_html
from memsim.report.tables import budget_tables, lifetime_tables, policy_table, scheme_table

__all__ = [
    "budget_tables",
    "lifetime_tables",
    "policy_table",
    "scheme_table",
    "to_html",
    "to_json",
]
