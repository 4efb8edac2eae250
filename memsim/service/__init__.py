"""A chip in service: what wears out, when, and what that costs."""

from memsim.service.advising import Advice, Service, advise
from memsim.service.costs import (
    Costs,
    Figure,
    ServiceInputs,
    make_service_inputs,
    read_service_inputs,
    total_cost,
)
from memsim.service.lifetime import (
    CellLives,
    Endurance,
    Lognormal,
    Weibull,
    lifetime_years,
    programmings_until_failure,
    programmings_with_spares,
    sample_lives,
    wear_out,
)
from memsim.service.ownership import Levelling, ServiceLife, life_in_service, quantiles
from memsim.service.wear import (
    WearHistogram,
    cycles_per_write,
    levelled_wear,
    levelled_writes,
    steady_wear,
    wear_cycles,
    wear_histogram,
)

__all__ = [
    "Advice",
    "CellLives",
    "Costs",
    "Endurance",
    "Figure",
    "Levelling",
    "Lognormal",
    "Service",
    "ServiceInputs",
    "ServiceLife",
    "WearHistogram",
    "Weibull",
    "advise",
    "cycles_per_write",
    "levelled_wear",
    "levelled_writes",
    "life_in_service",
    "lifetime_years",
    "make_service_inputs",
    "programmings_until_failure",
    "programmings_with_spares",
    "quantiles",
    "read_service_inputs",
    "sample_lives",
    "steady_wear",
    "total_cost",
    "wear_cycles",
    "wear_histogram",
    "wear_out",
]
