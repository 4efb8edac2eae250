"""Puts figures and names as people read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memsim.service.lifetime import DAYS_PER_YEAR
from memsim.summary import Summary

__all__ = [
    "CODE_ERRORS",
    "code_error_text",
    "count_text",
    "crossbar_lines",
    "encodings_text",
    "fold_name",
    "index_bits_text",
    "lifetime_title",
    "moved_bits",
    "net_text",
    "number_text",
    "origin_text",
    "passes_text",
    "pool_text",
    "printable",
    "quantity_text",
    "time_text",
    "wear_text",
    "width_text",
    "writing_text",
]

# Says what `code_error_text` writes.
CODE_ERRORS = (
    "Code error: root mean square / mean of the errors that a tolerance leaves in the weights held "
    "after correction, in steps of the codes; stuck cells and bit stucking add their own."
)


def printable(text: str) -> str:
    r"""Writes control and other invisible characters of a name as escapes.

    Names come from strangers' files: a raw escape character would steer the terminal.

    Example:
      >>> printable("fc\x1b[31m.weight")
      'fc\\x1b[31m.weight'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def count_text(number: float, noun: str, plural: str = "") -> str:
    """Counts things in words.

    Example:
      >>> count_text(1, "tensor"), count_text(3183, "tensor"), count_text(2, "pass")
      ('1 tensor', '3,183 tensors', '2 passes')

    Args:
      number: how many.
      noun: what, in the singular.
      plural: of the noun where it is neither in -s nor, after s, x, ch or sh, in -es.
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    if number == 1:
        return f"{shown} {noun}"
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{shown} {plural or noun + ending}"


def fold_name(name: str, width: int) -> str:
    r"""Breaks the name of a policy into lines, after `:`, `,`, `+` or a space.

    Example:
      >>> fold_name("matched:tolerance=1,correction=mean", 26)
      'matched:tolerance=1,\ncorrection=mean'

    Args:
      name: to break.
      width: of a line; a part without a place to break stays whole.
    """
    lines = [""]
    start = 0
    for end, letter in enumerate(name, 1):
        if letter not in ":,+ " and end < len(name):
            continue
        # a part ends with its sign, and opens a line where it has no room
        part, start = name[start:end], end
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def index_bits_text(bits: float) -> str:
    """Writes index bits to one decimal; a price that rounds to nothing is not called nothing."""
    return "<0.1" if 0 < bits < 0.05 else f"{bits:.1f}"


def moved_bits(summary: Summary) -> float:
    """Gives the bits that are moved to the chip in a pass, index and words, for each weight."""
    weights = sum(layer.weights for layer in summary.layers.values())
    passes = len(summary.writes_per_pass)
    return (summary.index_bits + summary.data_bits) / (weights * passes)


def code_error_text(rms: float | None, mean: float | None) -> str:
    """Writes the root mean square and the mean of code errors; nothing where there are none.

    Example:
      >>> code_error_text(1.3812, -0.0004)
      '1.38 / +0.00'
    """
    # adding 0 makes a negative zero positive
    return "" if rms is None or mean is None else f"{rms:.2f} / {round(mean, 2) + 0.0:+.2f}"


def quantity_text(value: float, unit: str) -> str:
    """Writes a time or an energy to one decimal, with the prefix it takes: 0.287 s is 287.0 ms."""
    # 999.95 is 1,000.0 to one decimal
    power = min(max(math.floor(math.log10(value / 0.99995) / 3), -5), 4) if value else 0
    return f"{value / 1000.0**power:.1f} {'fpnµm kMGT'[power + 5].strip()}{unit}"


def time_text(years: float) -> str:
    """Writes a time in the largest unit that there is one of."""
    hours = 24 * DAYS_PER_YEAR
    units = {"years": 1.0, "days": DAYS_PER_YEAR, "h": hours, "min": 60 * hours}
    # from the largest: the first that there is at least one of
    for unit, per_year in units.items():
        if years * per_year >= 1:
            text = number_text(years * per_year)
            return (
                text if text == "never" else f"{text} {unit.rstrip('s') if text == '1' else unit}"
            )
    return f"{number_text(years * 86400 * DAYS_PER_YEAR)} s"


def number_text(value: float) -> str:
    """Writes a number to three digits; what never happens is said so."""
    return "never" if math.isinf(value) else f"{value:,.3g}" if value < 999.5 else f"{value:,.0f}"


def passes_text(writes_per_pass: Sequence[int]) -> str:
    """Gives what a title adds where figures are of several passes."""
    return f", {len(writes_per_pass)} passes" if len(writes_per_pass) > 1 else ""


def origin_text(name: str, inputs: Mapping[str, Any]) -> str:
    """Says where an input of the lifetime is from.

    Args:
      name: such as `cost.batch`.
      inputs: their JSON values, see `service_inputs_json`.
    """
    if name in inputs["given"]:
        return "your file"
    return "PLACEHOLDER" if name in inputs["placeholders"] else "default"


def writing_text(report: Mapping[str, Any]) -> str:
    """Says how writes fail, of a report with `writing`."""
    writing = report["writing"]

    def percent(success: float | Sequence[float]) -> str:
        rates = sorted({success} if isinstance(success, float) else set(success))
        return " or ".join(f"{100 * (1 - rate):.3g}" for rate in reversed(rates))

    goes_by = {"read": "reads each row first", "blind": "goes by the plan alone"}
    return (
        f"Written as {printable(writing['text'])}: {percent(writing['set_success'])} % of SETs and "
        f"{percent(writing['reset_success'])} % of RESETs fail; the controller "
        f"{goes_by[writing['controller']]}"
    )


def pool_text(config: Mapping[str, Any]) -> str:
    """Says which pool of crossbars a chip has.

    Example:
      >>> pool_text({"crossbars": 64, "rows": 128, "columns": 128, "schedule": "block"})
      '64 crossbars of 128 rows x 128 columns, block schedule'

    Args:
      config: its JSON values.
    """
    wide = config.get("columns")
    size = f" x {count_text(wide, 'column')}" if wide else ", one word wide"
    size = f"of {count_text(config['rows'], 'row')}{size}"
    if config["crossbars"] is None:
        return f"one crossbar per section, {size}"
    pool = f"{count_text(config['crossbars'], 'crossbar')} {size}"
    return pool if config["crossbars"] == 1 else f"{pool}, {config['schedule']} schedule"


def width_text(config: Mapping[str, Any]) -> str:
    """Says how wide crossbars are: one word, the published model, or several that share rows.

    Example:
      >>> width_text({"columns": 128, "words_per_row": 16})
      '128 columns, 16 words a row that share its input'

    Args:
      config: its JSON values.
    """
    if config.get("columns") is None:
        return "one word wide, the published model: every output has input lines of its own"
    words = config["words_per_row"]
    shared = f"{words} words a row that share its input" if words > 1 else "one word a row"
    return f"{count_text(config['columns'], 'column')}, {shared}"


def crossbar_lines(config: Mapping[str, Any]) -> dict[str, str]:
    """Says what crossbars are, by what each text is of.

    Args:
      config: its JSON values, with `words_per_row`.
    """
    encoding = str(config["encoding"]).replace("_", " ")
    return {
        "crossbars": pool_text(config),
        "width": width_text(config),
        "weights": f"{config['bits']} bits in {encoding}, {count_text(config['cell_bits'], 'bit')} "
        f"per cell, scale per {config['scale_per']}",
    }


def net_text(report: Mapping[str, Any]) -> str:
    """Says what net reductions of energy are of.

    Args:
      report: its JSON values; with `hardware` where that is known.
    """
    if "hardware" not in report:
        if any(entry["net_reduction"] is not None for entry in report["policies"].values()):
            return "net energy: by the prices of the default hardware (published)"
        bits = report["config"]["cell_bits"]
        return f"no energy: no figures of pulses for cells of {bits} bits" if bits > 1 else ""
    numbers = {name: of["value"] for name, of in report["hardware"]["numbers"].items()}
    reads = ", reads of the controller" if numbers["cells.controller"] == "read" else ""
    pulses = f"{numbers['cells.scheme']} pulses of {numbers['cells.kind']} cells"
    price = f"{numbers['memory.move_energy'] * 1e12:g} pJ a bit"
    return f"net energy: {pulses}{reads}, index and words moved at {price}"


def encodings_text(report: Mapping[str, Any]) -> str:
    """Says which encodings a report compares, how wide their words are, and the baseline.

    Args:
      report: its JSON values, with `encodings`.
    """
    rows: dict[tuple[int, int], list[str]] = {}
    for encoding, of in report["encodings"].items():
        rows.setdefault((of["cells_per_word"], of["words_per_row"]), []).append(encoding)
    widths = [
        f"{count_text(cells, 'cell')} ({count_text(words, 'word')} a row) in {', '.join(names)}"
        for (cells, words), names in rows.items()
    ]
    shown = "every encoding" if report["config"]["encoding"] == "all" else "its best encoding"
    baseline = report["baseline"]
    return (
        f"Each policy in {shown}; reduction is against {baseline['policy']} in "
        f"{baseline['encoding']}, {count_text(baseline['writes'], 'write')}. "
        f"A word takes {'; '.join(widths)}."
    )


def wear_text(report: Mapping[str, Any]) -> str:
    """Says how cells wear, in one or two sentences.

    Args:
      report: what `to_json` gives, with `lifetime`.
    """
    share = report["lifetime"]["cycles_per_write"]
    if report["lifetime"]["cycles_counted"]:
        return (
            "Endurance is in cycles, a SET and a RESET of one cell: a cell of one bit wears by "
            "half a cycle a write, since it is SET and RESET in turn. Pulses and retries of a "
            "scheme do not count."
        )
    return (
        "Endurance is in cycles, and a cell wears by its SETs or its RESETs, whichever are more. "
        f"Cells of {report['config']['cell_bits']} bits are taken to wear by {share:g} cycles a "
        "write, the most that is possible: their SETs and RESETs are not counted apart, and they "
        "may live longer. Pulses and retries of a scheme do not count."
    )


def lifetime_title(report: Mapping[str, Any]) -> str:
    """Says what pool of crossbars the lifetimes in a report are of, and in which service.

    Args:
      report: what `to_json` gives, with `lifetime`.
    """
    lifetime = report["lifetime"]
    rotated = {"none": "", "both": ", rows and crossbars rotated"}
    levelled = rotated.get(lifetime["levelling"], f", {lifetime['levelling']} rotated")
    spares = lifetime["spares"]
    standby = f" and no spare row is left ({spares} per crossbar)" if spares else ""
    scheme = ", constant pulses that succeed"
    if lifetime["cells"]:
        scheme = f", {lifetime['scheme']} on {lifetime['cells']} cells"
    rate = f"{count_text(lifetime['cost']['inferences_per_day'], 'inference')} a day"
    return (
        f"Lifetime of a chip with {lifetime['pool']}, until a cell fails{standby}, at "
        f"{rate}{scheme}{levelled}"
    )
