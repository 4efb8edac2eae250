import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import oracles
import pytest
import safetensors.numpy
import scipy.optimize

import memsim

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
AVOID = memsim.policies.Matched(faults="avoid")
LAYERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=3)


def network(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"layer{i}.weight": rng.laplace(size=shape).astype(np.float32)
        for i, shape in enumerate(shapes)
    }


def sample(params, config, share, seed=0):
    plan = memsim.plan(params, config, memsim.policies.Unsorted())
    return memsim.sample_chip(jax.random.key(seed), plan, share / 2, share / 2)


def codes_of(params, plan):
    return {
        name: np.asarray(memsim.codes.quantize(weights, plan.layers[name].scale, plan.config), int)
        for name, weights in params.items()
    }


def errors(params, plan, chip):
    """Codes that a chip is off by, of each layer [outputs, inputs]."""
    held, _ = memsim.program(params, plan, chip)
    return {
        name: np.rint(np.asarray(held[name]) / np.asarray(plan.layers[name].scale)).astype(int)
        - codes
        for name, codes in codes_of(params, plan).items()
    }


def squares(*arguments):
    return sum(np.sum(off**2) for off in errors(*arguments).values())


def least_errors(low, high, config):
    """The least error of every code on a row with these stuck cells: tries all that can be held."""
    codes = range(config.min_code, config.max_code + 1)
    held = set()
    for target in codes:
        word = oracles.pack(oracles.word(target, config), config)
        held.add(oracles.code_of(oracles.unpack(word & ~low & ~high | high, config), config))
    return {code: min(abs(code - value) for value in held) for code in codes}


def by_row(plan, chip):
    """The least errors of every code at the row of each weight, by layer."""
    tables, found, first = {}, {}, 0
    sections = np.asarray(plan.schedule.sections)
    for name in plan.names:
        placement = plan.layers[name].placement
        here = []
        for position in np.asarray(placement.positions):
            section, word = divmod(int(position), plan.config.words)
            ((_, crossbar),) = np.argwhere(sections == first + section)
            stuck = (int(chip.stuck_at_0[crossbar, word]), int(chip.stuck_at_1[crossbar, word]))
            if stuck not in tables:
                tables[stuck] = least_errors(*stuck, plan.config)
            here.append(tables[stuck])
        found[name] = here
        first += len(placement.used_rows)
    return found


@pytest.mark.slow
@hypothesis.given(
    layers=LAYERS,
    encoding=st.sampled_from(ENCODINGS),
    crossbars=st.sampled_from([1, 3, None]),
    schedule=st.sampled_from(["block", "interleaved"]),
    bits=st.sampled_from([3, 5]),
    cell_bits=st.sampled_from([1, 2]),
    tolerance=st.integers(0, 3),
    pool=st.sampled_from(["output", "section"]),
    share=st.sampled_from([0.03, 0.3, 1]),
    columns=st.sampled_from([None, 10, 24]),
)
@hypothesis.settings(max_examples=5)
def test_every_weight_is_off_by_as_little_as_its_word_allows(
    layers, encoding, crossbars, schedule, bits, cell_bits, tolerance, pool, share, columns
):
    config = memsim.CrossbarConfig(
        rows=8, encoding=encoding, crossbars=crossbars, schedule=schedule, bits=bits,
        cell_bits=cell_bits, columns=columns,
    )  # fmt: skip
    params = network(layers)
    chip = sample(params, config, share)
    policy = memsim.policies.Matched(
        tolerance=tolerance, pool=pool, correction="none", faults="avoid"
    )
    plan = memsim.plan(params, config, policy, chip=chip)
    off, rows = errors(params, plan, chip), by_row(plan, chip)
    for name, codes in codes_of(params, plan).items():
        placement = plan.layers[name].placement
        used = np.asarray(placement.weights).reshape(-1) < codes.size
        assert sorted(np.asarray(placement.positions)) == list(np.flatnonzero(used))
        least = [table[code] for table, code in zip(rows[name], codes.reshape(-1), strict=True)]
        assert np.all(np.abs(off[name]).reshape(-1) <= np.maximum(least, tolerance))
        if tolerance == 0:
            np.testing.assert_array_equal(np.abs(off[name]).reshape(-1), least)


@pytest.mark.slow
@hypothesis.given(
    seed=st.integers(0, 999),
    encoding=st.sampled_from(ENCODINGS),
    crossbars=st.sampled_from([1, None]),  # on several, writes matter too
    inputs=st.integers(1, 40),
    tolerance=st.integers(0, 2),
    share=st.sampled_from([0.1, 0.4]),
)
@hypothesis.settings(max_examples=6)
def test_no_assignment_of_an_output_forces_smaller_errors(
    seed, encoding, crossbars, inputs, tolerance, share
):
    # against an assignment solver that knows nothing of kinds of rows
    config = memsim.CrossbarConfig(rows=8, encoding=encoding, bits=5, crossbars=crossbars)
    params = network([(4, inputs)], seed)
    chip = sample(params, config, share, seed)
    policy = memsim.policies.Matched(tolerance=tolerance, correction="none", faults="avoid")
    plan = memsim.plan(params, config, policy, chip=chip)
    ((name, codes),) = codes_of(params, plan).items()
    off, rows = errors(params, plan, chip)[name], by_row(plan, chip)[name]
    for output in range(4):
        tables = rows[output * inputs : (output + 1) * inputs]
        least = np.array([[table[code] for code in codes[output]] for table in tables])
        cost = np.where(least > tolerance, least**2, 0)
        best = cost[scipy.optimize.linear_sum_assignment(cost)].sum()
        assert np.sum(off[output] ** 2, where=np.abs(off[output]) > tolerance) == best


@pytest.mark.slow
@hypothesis.given(
    layers=st.sampled_from([[(3, 3)], [(4, 20), (6, 9)]]),
    encoding=st.sampled_from(ENCODINGS),
    crossbars=st.sampled_from([2, None]),
    share=st.sampled_from([0.02, 0.2, 0.7]),
    seed=st.integers(0, 99),
)
@hypothesis.settings(max_examples=4)
def test_errors_are_never_more_than_of_a_blind_placement(layers, encoding, crossbars, share, seed):
    config = memsim.CrossbarConfig(rows=8, encoding=encoding, crossbars=crossbars)
    params = network(layers, seed)
    chip = sample(params, config, share, seed)
    blind = memsim.plan(params, config, memsim.policies.Matched())
    aware = memsim.plan(params, config, AVOID, chip=chip)
    assert squares(params, aware, chip) <= squares(params, blind, chip)


@pytest.mark.parametrize("columns", [None, 32])
@pytest.mark.parametrize("crossbars", [pytest.param(1, marks=pytest.mark.slow), 3, None])
@pytest.mark.parametrize("tolerance", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_errors_all_but_vanish(crossbars, tolerance, columns):
    config = memsim.CrossbarConfig(rows=32, crossbars=crossbars, columns=columns)
    params = network([(12, 80), (20, 64)])
    chip = sample(params, config, 0.03)
    plain = memsim.policies.Matched(tolerance=tolerance, correction="none")
    blind = memsim.plan(params, config, plain)
    policy = memsim.policies.Matched(tolerance=tolerance, correction="none", faults="avoid")
    aware = memsim.plan(params, config, policy, chip=chip)
    before, after = (
        np.concatenate([np.abs(off).reshape(-1) for off in errors(params, plan, chip).values()])
        for plan in (blind, aware)
    )
    weights = before.size
    assert np.sum(before > tolerance) > 0.05 * weights
    assert np.sum(after > tolerance) < 0.002 * weights
    assert 20 * np.sum(after**2, where=after > tolerance) < np.sum(before**2)


@pytest.mark.parametrize(
    ("crossbars", "columns"), [(1, None), (None, None), (3, None), (1, 24), (3, 24)]
)
@pytest.mark.parametrize("policy", ["matched", "matched:tolerance=2,price=5,pool=section"])
def test_a_chip_without_faults_gives_the_same_plan(crossbars, columns, policy, monkeypatch):
    if crossbars == 1:  # few sections are chosen by what it holds, unless stuck cells are avoided
        monkeypatch.setattr("memsim.policies.matched._MANY_STEPS", 0)
    config = memsim.CrossbarConfig(rows=8, crossbars=crossbars, columns=columns)
    params = network([(6, 30), (5, 7)])
    policy = memsim.Policy.parse(policy)
    avoiding = dataclasses.replace(policy, faults="avoid")
    blind = memsim.plan(params, config, policy)
    aware = memsim.plan(params, config, avoiding, chip=sample(params, config, 0))
    jax.tree.map(np.testing.assert_array_equal, blind, aware)


def test_plans_for_other_chips_have_the_same_shapes(tmp_path):
    config = memsim.CrossbarConfig(rows=8)
    params = network([(6, 30), (5, 7)])
    plans = [
        memsim.plan(params, config, AVOID, chip=sample(params, config, share))
        for share in (0, 0.3, 1)
    ]
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), plan) for plan in plans]
    assert kinds[0] == kinds[1] == kinds[2]
    memsim.save_plan(tmp_path / "plan.safetensors", plans[2])
    loaded = memsim.load_plan(tmp_path / "plan.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, plans[2])


@pytest.mark.parametrize("columns", [None, 64])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_correction_is_of_the_errors_that_the_chip_holds(encoding, columns):
    # differential: what is programmed beside a stuck cell is another code than what is held
    config = memsim.CrossbarConfig(rows=32, encoding=encoding, columns=columns)
    params = network([(6, 96)])
    chip = sample(params, config, 0.1)
    policies = (f"matched:tolerance=1{option},faults=avoid" for option in (",correction=none", ""))
    plain, corrected = (
        memsim.plan(params, config, memsim.Policy.parse(text), chip=chip) for text in policies
    )
    ((name, off),) = errors(params, plain, chip).items()
    correction = np.asarray(corrected.layers[name].correction)
    np.testing.assert_allclose(correction, off.mean(axis=1), atol=1 / 256)


@pytest.mark.parametrize("crossbars", [2, None])
@pytest.mark.parametrize("as_map", [pytest.param(False, marks=pytest.mark.slow), True])
def test_every_chip_of_a_comparison_has_a_plan_of_its_own(crossbars, as_map):
    config = memsim.CrossbarConfig(rows=8, crossbars=crossbars)
    params = network([(6, 30), (5, 20)])
    policies = {"blind": memsim.policies.Matched(), "avoid": AVOID}
    plain = memsim.plan(params, config, memsim.policies.Unsorted())
    keys = jax.random.split(jax.random.key(3), 2)
    chips = [memsim.sample_chip(key, plain, 0.05, 0.05) for key in keys]
    stuck = {"stuck_at_0": 0.05, "stuck_at_1": 0.05}
    if as_map:
        chips = [chips[0]] * 2
        stuck = {"faults": memsim.chip.fault_cells(chips[0], config)}
    compared = memsim.compare(
        params,
        config,
        policies,
        passes=2,
        chips=memsim.Chips(number=2, seed=3, **stuck),
    )
    for name, policy in policies.items():
        writes = []
        for chip in chips:
            plan = memsim.plan(params, config, policy, chip=chip)
            _, programming = memsim.program(params, plan, chip, passes=2)
            writes.append(memsim.summarize(programming, plan).writes)
        assert compared.policies[name].writes == round(sum(writes) / 2)
        assert compared.policies[name].chips == 2


def test_policies_are_read_as_they_are_written():
    for text in ("matched:faults=avoid", "matched+stuck:p=0.5,low=1,tolerance=1,faults=avoid"):
        assert str(memsim.Policy.parse(text)) == text
    assert memsim.Policy.parse("matched:faults=avoid") == AVOID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chip": None}, "`policy` avoids the stuck cells of one `chip`"),
        ({"rows": 4}, r"`chip` has stuck cells of \(2, 8\) .* take \(2, 4\)"),
        ({"crossbars": None}, r"`chip` has stuck cells of \(2, 8\) .* take \(12, 8\)"),
        ({"bits": 12}, "`faults` is 'avoid' at 12 `bits`; it takes at most 10 bits"),
    ],
)
def test_wrong_chips_are_refused(change, message):
    params = network([(6, 10)])
    made = sample(params, memsim.CrossbarConfig(rows=8, crossbars=2), 0.1)
    chip = change.pop("chip", made)
    config = memsim.CrossbarConfig(**{"rows": 8, "crossbars": 2} | change)
    with pytest.raises(ValueError, match=message):
        memsim.plan(params, config, AVOID, chip=chip)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: memsim.policies.Matched(faults="flee"), "`faults` is 'flee'; choose one of"),
        (lambda: memsim.policies.Unsorted(faults="avoid"), "unexpected keyword argument 'faults'"),
        (lambda: memsim.Policy.parse("sws:faults=avoid"), "sws takes no options"),
    ],
)
def test_wrong_policies_say_what_is_wrong(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("crossbars", ["2", "all"])
def test_the_command_line_plans_for_a_chip(run, tmp_path, crossbars):
    params = network([(6, 30), (5, 20)])
    config = memsim.CrossbarConfig(rows=16, crossbars=None if crossbars == "all" else 2)
    chip = sample(params, config, 0.2)
    net, chip_file, cells, out = (tmp_path / f"{name}.safetensors" for name in "ncmo")
    safetensors.numpy.save_file(params, net)
    memsim.save_chip(chip_file, chip, config)
    memsim.save_faults(cells, chip, config)
    options = ["--policy", "matched:faults=avoid", "--rows", 16, "--crossbars", crossbars]
    expected = memsim.plan(params, config, AVOID, chip=chip)
    for given in (["--chip", chip_file], ["--faults", cells]):
        assert run("plan", net, *options, *given, "--out", out, "--force")[0] == 0
        jax.tree.map(np.testing.assert_array_equal, memsim.load_plan(out), expected)
        held = tmp_path / "held.safetensors"
        code, printed, _ = run("program", net, *options, *given, "--out", held, "--force")
        assert code == 0
        effective, programming = memsim.program(params, expected, chip)
        writes = memsim.summarize(programming, expected).writes
        assert f"{writes:,} writes programmed" in printed
        stored = safetensors.numpy.load_file(held)
        jax.tree.map(np.testing.assert_array_equal, stored, dict(effective))


def test_report_and_program_agree_on_a_sampled_chip(run, tmp_path):
    net, out, held = (tmp_path / name for name in ("n.safetensors", "o.json", "h.safetensors"))
    safetensors.numpy.save_file(network([(6, 30), (5, 20)]), net)
    options = ["--policy", "matched:faults=avoid", "--rows", 16, "--stuck-at-1", 0.1, "--seed", 5]
    assert run("report", net, *options, "--json", out)[0] == 0
    writes = json.loads(out.read_text())["policies"]["matched:faults=avoid"]["writes"]
    assert f"{writes:,} writes programmed" in run("program", net, *options, "--out", held)[1]
    assert run("report", net, *options, "--chips", 3, "--json", out, "--force")[0] == 0
    assert json.loads(out.read_text())["policies"]["matched:faults=avoid"]["chips"] == 3


def test_the_command_line_says_what_is_wrong(run, tmp_path):
    net, out = tmp_path / "n.safetensors", tmp_path / "o.safetensors"
    safetensors.numpy.save_file(network([(6, 30)]), net)
    plan = ["plan", net, "--out", out, "--policy"]
    for arguments, message in (
        ([*plan, "matched:faults=avoid"], "command line: --chip or --faults"),
        ([*plan, "sws", "--chip", "x"], "are of matched:faults=avoid; leave them out"),
        ([*plan, "matched:faults=avoid", "--chip", "x", "--faults", "y"], "leave --faults out"),
    ):
        code, _, error = run(*arguments)
        assert code == 1
        assert message in error
    assert not out.exists()
