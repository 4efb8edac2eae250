"""The definitions as plain loops: one cell at a time, nothing taken from the library."""

import dataclasses
import math
import re

import numpy as np


def natural_order(names):
    return sorted(names, key=lambda name: re.sub("[0-9]+", lambda run: run[0].zfill(9), name))


def matrix(tensor, axes):
    """[outputs, inputs], each in the tensor's own order."""
    outputs = math.prod(tensor.shape[axis] for axis in axes)
    return np.moveaxis(tensor, axes, range(len(axes))).reshape(outputs, -1)


def tensor_of(weights, shape, axes):
    """The tensor of this shape whose `matrix` is `weights`."""
    places = matrix(np.arange(math.prod(shape)).reshape(shape), axes)
    flat = np.zeros(math.prod(shape), weights.dtype)
    flat[places] = weights
    return flat.reshape(shape)


def scales(weights, config):
    """One float32 scale per output."""
    largest = np.float32(2 ** (config.bits - 1) - 1)
    weights = np.abs(weights.astype(np.float32))
    if config.scale_per == "output":
        top = [max(row) for row in weights]
    else:
        top = [weights.max()] * len(weights)
    return np.array([m / largest if m > 0 else 1 for m in top], np.float32)


def quantize(weights, scale, config):
    largest = 2 ** (config.bits - 1) - 1
    codes = np.rint(weights.astype(np.float32) / scale[:, None])
    return np.clip(codes, -largest, largest).astype(int)


def word(code, config):
    """The parts of a word that are cut into cells separately: one number, or two."""
    code, bits = int(code), config.bits
    match config.encoding:
        case "twos_complement":
            return [code % 2**bits]
        case "offset_binary":
            return [code + 2 ** (bits - 1)]
        case "sign_magnitude":
            return [abs(code) + (2 ** (bits - 1) if code < 0 else 0)]
        case "differential":
            return [max(code, 0), max(-code, 0)]


def code_of(parts, config):
    top = 2 ** (config.bits - 1)
    match config.encoding:
        case "twos_complement":
            return parts[0] - 2 * top if parts[0] >= top else parts[0]
        case "offset_binary":
            return parts[0] - top
        case "sign_magnitude":
            return -(parts[0] - top) if parts[0] >= top else parts[0]
        case "differential":
            return parts[0] - parts[1]


def part_bits(config):
    return [config.bits - 1] * 2 if config.encoding == "differential" else [config.bits]


def to_cells(parts, config):
    """Levels, column 0 first: each part cut into `cell_bits` bits from its low end."""
    levels = []
    for part, bits in zip(parts, part_bits(config), strict=True):
        for low in range(0, bits, config.cell_bits):
            levels.append((part >> low) % 2 ** min(config.cell_bits, bits - low))
    return levels


def to_parts(levels, config):
    levels, parts = list(levels), []
    for bits in part_bits(config):
        lows = range(0, bits, config.cell_bits)
        parts.append(sum(levels.pop(0) << low for low in lows))
    return parts


def pack(parts, config):
    """The word as the library packs it: a second part starts above the cells of the first."""
    shift = math.ceil(part_bits(config)[0] / config.cell_bits) * config.cell_bits
    return sum(part << (i * shift) for i, part in enumerate(parts))


def unpack(packed, config):
    packed = int(packed)
    shift = math.ceil(part_bits(config)[0] / config.cell_bits) * config.cell_bits
    return [(packed >> (i * shift)) % 2**bits for i, bits in enumerate(part_bits(config))]


def top_levels(config):
    return to_cells([2**bits - 1 for bits in part_bits(config)], config)


def words_of_a_row(config, flag=False):
    """Words that stand side by side, each of a cell a column, and one for its flag."""
    return 1 if config.columns is None else config.columns // (len(top_levels(config)) + flag)


def sections(codes, placement, rows, words=1):
    """In programming order: of each section {(row, slot): (output, input) of the weight there}."""
    m, n = codes.shape
    if placement == "sws-layer":
        line = [(o, i) for o in range(m) for i in range(n)]
        line.sort(key=lambda place: codes[place])  # stable: ties stay output-major
        cut = [line[first : first + rows] for first in range(0, m * n, rows)]
        return [{(r, 0): place for r, place in enumerate(section)} for section in cut]
    groups = []
    for first in range(0, m, words):
        members = range(first, min(first + words, m))
        inputs = list(range(n))
        if placement == "sws":
            inputs.sort(key=lambda i: sum(int(codes[o, i]) for o in members))
        groups.append(
            [
                {
                    (r, slot): (o, i)
                    for r, i in enumerate(inputs[start : start + rows])
                    for slot, o in enumerate(members)
                }
                for start in range(0, n, rows)
            ]
        )
    if placement == "sws":
        return [group[s] for s in range(len(groups[0])) for group in groups]
    return [section for group in groups for section in group]


def crossbar_of(section, count, config):
    """The crossbar that a layer's section goes on, of `count` sections."""
    if config.crossbars is None:
        return section
    if config.schedule == "interleaved":
        return section % config.crossbars
    return section // math.ceil(count / config.crossbars)


@dataclasses.dataclass
class LayerCounts:
    sets: list
    resets: list
    set_pulses: list
    reset_pulses: list
    wrong: int = 0
    row_operations: int = 0
    set_rows: int = 0
    reset_rows: int = 0
    data_bits: int = 0


@dataclasses.dataclass
class Programmed:
    counts: list  # per pass: name -> LayerCounts
    wear: np.ndarray  # [crossbars, rows, columns]
    state: np.ndarray  # packed words [crossbars, words], row by row
    effective: dict  # name -> tensor of its own dtype


def data_bits(section, pulsed_rows, config):
    """Bits sent to write a section: all its words, or flags of rows and the words of some."""
    of_word = sum(part_bits(config))
    every = of_word * len(section)
    some = len({r for r, _ in section})
    some += sum(of_word for r, _ in section if r in pulsed_rows)
    return min(every, some)


def program(
    tensors,
    axes,
    config,
    placement,
    enable=None,
    stuck=None,
    state=None,
    passes=1,
    plans=None,
    success=None,
    controller="read",
):
    """Programs every tensor `passes` times, one cell after another.

    Args:
      tensors: name -> NumPy array.
      axes: name -> its output axes.
      config: rows, bits, cell_bits, encoding, crossbars, schedule, scale_per.
      placement: unsorted, sws or sws-layer.
      enable: (pass, name, section) -> packed words [words] of the cells bit stucking leaves
        enabled; words of a section or crossbar are numbered row by row.
      stuck: packed words [crossbars, words] (1: stuck cell) and the words they are stuck at.
      state: packed words [crossbars, words] before the first pass; erased without it.
      plans: name -> tensor that scale and placement were planned from, where not its own.
      success: (pass, name, section) -> packed words [words] of the cells of which a SET succeeds,
        and of those of which a RESET does; without it every pulse succeeds.
      controller: read (cells that differ are pulsed) or blind (those that the plan changes are).
    """
    names, rows, across = natural_order(tensors), config.rows, words_of_a_row(config)
    scale, codes, placed, first, total = {}, {}, {}, {}, 0
    for name in names:
        planned = matrix((plans or tensors)[name], axes[name])
        scale[name] = scales(planned, config)
        codes[name] = quantize(matrix(tensors[name], axes[name]), scale[name], config)
        seen = quantize(planned, scale[name], config)
        placed[name] = sections(seen, placement, rows, across)
        first[name] = total if config.crossbars is None else 0
        total += len(placed[name])
    crossbars = config.crossbars or total
    columns = len(top_levels(config))

    level, broken = {}, set()
    nothing = np.zeros((crossbars, rows * across), int)
    is_stuck, stuck_at = (nothing, nothing) if stuck is None else stuck
    for c, w in np.ndindex(crossbars, rows * across):
        held = to_cells(unpack((nothing if state is None else state)[c, w], config), config)
        at = to_cells(unpack(stuck_at[c, w], config), config)
        for b, here in enumerate(to_cells(unpack(is_stuck[c, w], config), config)):
            level[c, w, b] = at[b] if here else held[b]
            if here:
                broken.add((c, w, b))
    planned = dict(level)  # what a controller takes the cells to hold that never looks

    wear = np.zeros((crossbars, rows, config.columns or columns), int)
    counts, achieved = [], {name: np.zeros_like(codes[name]) for name in names}
    for k in range(passes):
        counts.append({})
        for name in names:
            tally = counts[k][name] = LayerCounts(*([0] * columns for _ in range(4)))
            for s, section in enumerate(placed[name]):
                c = first[name] + crossbar_of(s, len(placed[name]), config)
                changed_rows, set_rows, reset_rows = set(), set(), set()
                for (r, slot), place in section.items():
                    w = r * across + slot
                    target = to_cells(word(codes[name][place], config), config)
                    may, set_ok, reset_ok = [1] * columns, [1] * columns, [1] * columns
                    if enable is not None:
                        may = to_cells(unpack(enable[k, name, s][w], config), config)
                    if success is not None:
                        set_ok, reset_ok = (
                            to_cells(unpack(words[w], config), config)
                            for words in success[k, name, s]
                        )
                    for b in range(columns):
                        cell, goal = (c, w, b), target[b]
                        old = level[cell]
                        if cell not in broken and may[b]:
                            seen = old if controller == "read" else planned[cell]
                            planned[cell] = goal
                            if goal > seen:
                                tally.set_pulses[b] += 1
                                set_rows.add(r)
                            if goal < seen:
                                tally.reset_pulses[b] += 1
                                reset_rows.add(r)
                            done = set_ok[b] if goal > old else reset_ok[b]
                            if goal != seen and goal != old and done:
                                level[cell] = goal
                                (tally.sets if goal > old else tally.resets)[b] += 1
                                wear[c, r, slot * columns + b] += 1
                                changed_rows.add(r)
                        tally.wrong += level[cell] != goal
                    now = [level[c, w, b] for b in range(columns)]
                    achieved[name][place] = code_of(to_parts(now, config), config)
                tally.row_operations += len(changed_rows)
                tally.set_rows += len(set_rows)
                tally.reset_rows += len(reset_rows)
                tally.data_bits += data_bits(section, set_rows | reset_rows, config)

    after = np.zeros((crossbars, rows * across), np.int64)
    for c, w in np.ndindex(crossbars, rows * across):
        after[c, w] = pack(to_parts([level[c, w, b] for b in range(columns)], config), config)
    effective = {
        name: tensor_of(
            achieved[name].astype(np.float32) * scale[name][:, None],
            tensors[name].shape,
            axes[name],
        ).astype(tensors[name].dtype)
        for name in names
    }
    return Programmed(counts, wear, after, effective)


def competitor(tensors, axes, config, form, stuck=None, passes=1, left=None):
    """Flip-N-Write (`form` word or section) or an ARAS-style offset (`aras`), cell after cell.

    What to store is chosen on a chip without faults that starts erased, then programmed on this.

    Args:
      stuck: bool maps of all cells, flags included, stuck at their lowest and highest level.
      left: levels by (crossbar, row, column) that the choice starts from, where not erased.

    Returns:
      (Programmed, levels): its state is that of all cells, levels [crossbars, rows, columns]; the
      levels that the choice ends with.
    """
    names, rows = natural_order(tensors), config.rows
    top = top_levels(config)
    columns = len(top)
    across, wide = words_of_a_row(config, form == "word"), columns + (form == "word")
    scale, codes, placed, first, total = {}, {}, {}, {}, 0
    for name in names:
        weights = matrix(tensors[name], axes[name])
        scale[name] = scales(weights, config)
        codes[name] = quantize(weights, scale[name], config)
        placed[name] = sections(codes[name], "unsorted", rows, across)
        first[name] = total if config.crossbars is None else 0
        total += len(placed[name])
    crossbars = config.crossbars or total
    shape = (crossbars, rows + (form == "section"), config.columns or wide)

    def on(name, s):
        return first[name] + crossbar_of(s, len(placed[name]), config)

    def put(cells, levels):
        """Programs cells, {(crossbar, row, column): level}, and counts the changes."""
        changes = sum(levels.get(cell, 0) != level for cell, level in cells.items())
        levels.update(cells)
        return changes

    def cost(cells, levels):
        return put(cells, dict(levels))

    def of_weight(name, s, place, offset=0):
        return to_cells(word(codes[name][placed[name][s][place]] + offset, config), config)

    def of_section(name, s, levels):
        c, chosen = on(name, s), {}
        plain = {place: of_weight(name, s, place) for place in placed[name][s]}
        if form == "word":
            for (r, slot), cells in plain.items():
                first = slot * wide
                kept = {(c, r, first + b): cells[b] for b in range(columns)}
                kept[c, r, first + columns] = 0
                turned = {(c, r, first + b): top[b] - cells[b] for b in range(columns)}
                turned[c, r, first + columns] = 1
                chosen |= turned if cost(turned, levels) < cost(kept, levels) else kept
            return chosen
        for slot in sorted({slot for _, slot in plain}):
            used = [r for r, other in plain if other == slot]
            for b in range(columns):
                column = slot * wide + b
                kept = {(c, r, column): plain[r, slot][b] for r in used} | {(c, rows, column): 0}
                turned = {(c, r, column): top[b] - plain[r, slot][b] for r in used}
                turned[c, rows, column] = top[b]
                chosen |= turned if cost(turned, levels) < cost(kept, levels) else kept
        return chosen

    def shifted(name, s, offset):
        c = on(name, s)
        return {
            (c, r, slot * wide + b): level
            for r, slot in placed[name][s]
            for b, level in enumerate(of_weight(name, s, (r, slot), offset))
        }

    events, offsets, levels = {}, {}, dict(left or {})
    for name in names:
        if form == "aras":
            reach, best = 2**config.bits, None
            for offset in range(-reach, reach + 1):
                unsigned = codes[name] + 2 ** (config.bits - 1) + offset
                if unsigned.min() < 0 or unsigned.max() >= reach:
                    continue
                trial = dict(levels)
                writes = sum(put(shifted(name, s, offset), trial) for s in range(len(placed[name])))
                rank = (writes, abs(offset), offset)
                best = rank if best is None else min(best, rank)
            offsets[name] = best[2]
        for s in range(len(placed[name])):
            if form == "aras":
                events[name, s] = shifted(name, s, offsets[name])
            else:
                events[name, s] = of_section(name, s, levels)
            put(events[name, s], levels)

    low, high = (np.zeros(shape, bool), np.zeros(shape, bool)) if stuck is None else stuck
    highest = [*top, 1][:wide]
    state, wear = np.zeros(shape, int), np.zeros(shape, int)
    for cell in zip(*np.nonzero(high), strict=True):
        if cell[2] < across * wide:
            state[cell] = highest[cell[2] % wide]
    counts, achieved = [], {name: np.zeros_like(codes[name]) for name in names}
    for _ in range(passes):
        counts.append({})
        for name in names:
            tally = counts[-1][name] = LayerCounts(*([0] * wide for _ in range(4)))
            for s, section in enumerate(placed[name]):
                changed = set()
                for cell, level in events[name, s].items():
                    old = state[cell]
                    if low[cell] or high[cell] or level == old:
                        continue
                    state[cell] = level
                    (tally.sets if level > old else tally.resets)[cell[2] % wide] += 1
                    wear[cell] += 1
                    changed.add(cell[1])
                tally.row_operations += len(changed)
                tally.data_bits += data_bits(section, changed, config)
                c = on(name, s)
                for (r, slot), place in section.items():
                    cells = slice(slot * wide, (slot + 1) * wide)
                    now = list(state[c, r, cells])
                    if form == "word" and now.pop():
                        now = [top[b] - now[b] for b in range(columns)]
                    if form == "section":
                        for b in range(columns):
                            flag = state[c, rows, slot * wide + b]
                            now[b] = top[b] - now[b] if flag else now[b]
                    code = code_of(to_parts(now, config), config)
                    achieved[name][place] = code - offsets.get(name, 0)
    effective = {
        name: tensor_of(
            achieved[name].astype(np.float32) * scale[name][:, None],
            tensors[name].shape,
            axes[name],
        ).astype(tensors[name].dtype)
        for name in names
    }
    return Programmed(counts, wear, state, effective), levels


def solve_crossbar(conductance, voltages, word_line, bit_line):
    """Device currents of a crossbar with resistive wires, from Kirchhoff's law at every node."""
    rows, columns = conductance.shape
    nodes = 2 * rows * columns
    matrix, sources = np.zeros((nodes, nodes)), np.zeros(nodes)

    def word(i, j):
        return i * columns + j

    def bit(i, j):
        return rows * columns + i * columns + j

    def connect(node, other, siemens):
        matrix[node, node] += siemens
        matrix[other, other] += siemens
        matrix[node, other] -= siemens
        matrix[other, node] -= siemens

    for i in range(rows):
        for j in range(columns):
            connect(word(i, j), bit(i, j), conductance[i, j])
            if j > 0:
                connect(word(i, j - 1), word(i, j), 1 / word_line)
            else:  # the driver
                matrix[word(i, j), word(i, j)] += 1 / word_line
                sources[word(i, j)] += voltages[i] / word_line
            if i + 1 < rows:
                connect(bit(i, j), bit(i + 1, j), 1 / bit_line)
            else:  # ground
                matrix[bit(i, j), bit(i, j)] += 1 / bit_line
    solved = np.linalg.solve(matrix, sources)
    drops = solved[: nodes // 2] - solved[nodes // 2 :]
    return conductance * drops.reshape(rows, columns)


def read_sum(words, inputs, config, readout):
    """What the converters of one section add up to for inputs of its rows; ideal cells.

    `words` are those of its rows, a row of flags last if there is one.
    """

    def convert(level_sum):
        if readout.adc_bits is None:
            return level_sum
        full = readout.adc_range or config.rows * (2**config.cell_bits - 1)
        step = full / (2**readout.adc_bits - 1)
        return min(round(level_sum / step), 2**readout.adc_bits - 1) * step

    def level(word, mask):
        return (int(word) & mask) // (mask & -mask)

    sign = 1 << (config.bits - 1)
    top_mask = config.column_masks[-1]
    data, flags = words[: config.rows], 0
    if config.flags == "section":
        flags = int(words[-1])
    apart = config.encoding == "sign_magnitude" or (
        config.encoding == "twos_complement" and top_mask != sign
    )
    read = 0
    for turn in (False, True) if apart else (None,):
        rows = [
            r
            for r in range(config.rows)
            if turn is None or bool((int(data[r]) ^ flags) & sign) == turn
        ]
        total = sum(inputs[r] for r in rows)
        turn_sum = 0
        for column, mask in enumerate(config.column_masks):
            column_sum = 0
            for bit in range(readout.input_bits):
                driven = [r for r in rows if (int(inputs[r]) >> bit) & 1]
                place = -(1 << bit) if bit == readout.input_bits - 1 else 1 << bit
                column_sum += place * convert(sum(level(data[r], mask) for r in driven))
            top = mask // (mask & -mask)
            if flags & mask:
                column_sum = top * total - column_sum
            if turn and mask == top_mask:  # the sign bit is no part of the magnitude
                within = level(sign, mask)
                column_sum -= (
                    within if config.encoding == "sign_magnitude" else 2 * within
                ) * total
            turn_sum += config.column_weights[column] * column_sum
        read += -turn_sum if turn and config.encoding == "sign_magnitude" else turn_sum
    if config.encoding == "offset_binary":
        read -= sign * sum(inputs)
    return read


def window_losses(logits, tokens):
    """Mean surprise, in nats, of the tokens of a text, window by window of as many logits.

    logits[w][t]: of the token that follows token t of window w. Windows do not overlap.
    """
    losses = []
    for w, window in enumerate(logits):
        total = 0.0
        for t, row in enumerate(window):
            after = tokens[w * len(window) + t + 1]
            top = max(row)
            total += top + math.log(sum(math.exp(x - top) for x in row)) - row[after]
        losses.append(total / len(window))
    return losses
