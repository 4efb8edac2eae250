"""Reports of several encodings: each row is that of its own report, on one baseline."""

import json

import numpy as np
import pytest
import safetensors.numpy

ENCODINGS = ("twos_complement", "offset_binary", "sign_magnitude", "differential")
POLICIES = ("unsorted", "sws", "matched:tolerance=1", "flip-n-write")


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(3)
    path = tmp_path / "net.safetensors"
    tensors = {"a.weight": rng.laplace(size=(6, 21)), "b.weight": rng.laplace(size=(5, 6))}
    safetensors.numpy.save_file({name: np.float32(x) for name, x in tensors.items()}, path)
    return path


@pytest.fixture
def report(run, checkpoint, tmp_path):
    def of(*options, policies=POLICIES):
        names = [text for policy in policies for text in ("--policy", policy)]
        out = tmp_path / "out.json"
        files = ["--json", out, "--html", tmp_path / "page.html", "--force"]
        code, printed, error = run("report", checkpoint, "--rows", 8, *names, *options, *files)
        assert code == 0, error
        return json.loads(out.read_text()), " ".join(printed.split())

    return of


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), marks=pytest.mark.slow),
        pytest.param(("--columns", 30, "--crossbars", 2, "--passes", 2), marks=pytest.mark.slow),
        pytest.param(
            ("--cell-bits", 2, "--chips", 3, "--stuck-at-0", 0.05), marks=pytest.mark.slow
        ),
    ],
)
def test_every_row_is_that_of_its_own_report(report, tmp_path, options):
    every, printed = report("--encoding", "all", *options)
    page = (tmp_path / "page.html").read_text()
    alone = {encoding: report("--encoding", encoding, *options)[0] for encoding in ENCODINGS}
    base = alone["twos_complement"]["policies"]["unsorted"]["writes"]
    assert every["config"]["encoding"] == "all"
    expected = {"policy": "unsorted", "encoding": "twos_complement", "writes": base}
    assert every["baseline"] == expected
    assert every["left_out"] == {}
    names = [f"{policy} in {encoding}" for policy in POLICIES for encoding in ENCODINGS]
    assert list(every["policies"]) == names
    for row, entry in every["policies"].items():
        policy, encoding = row.split(" in ")
        assert (entry["policy"], entry["encoding"]) == (policy, encoding)
        single = alone[encoding]["policies"][policy]
        for key in ("writes", "sets", "resets", "writes_per_column", "layers", "code_error_rms"):
            assert entry[key] == single[key]
        if "--chips" not in options:
            assert entry["reduction"] == base / entry["writes"]
        else:  # of each chip, so close to that of the means
            assert entry["reduction"] == pytest.approx(base / entry["writes"], rel=0.02)
        assert f"{entry['writes']:,}" in printed
    for encoding, of in every["encodings"].items():
        assert of["words_per_row"] == alone[encoding]["config"]["words_per_row"]
    assert f"reduction is against unsorted in twos_complement, {base:,} writes" in printed
    assert f"reduction is against unsorted in twos_complement, {base:,} writes" in page
    best, printed = report("--encoding", "best", *options)
    for policy, (row, entry) in zip(POLICIES, best["policies"].items(), strict=True):
        writes = [alone[encoding]["policies"][policy]["writes"] for encoding in ENCODINGS]
        assert row == f"{policy} in {ENCODINGS[int(np.argmin(writes))]}"
        assert entry == every["policies"][row]
    assert "Each policy in its best encoding" in printed


@pytest.mark.slow
def test_what_cannot_be_is_left_out_and_said(report, run, checkpoint, tmp_path):
    every, printed = report("--encoding", "all", policies=("sws", "aras"))
    left = ["aras in sign_magnitude", "aras in differential"]
    assert list(every["left_out"]) == left
    assert not set(left) & set(every["policies"])
    for name, why in every["left_out"].items():
        assert "aras stores unsigned words; use" in why
        assert f"left out: {name}: {why}" in printed
    # differential words take 14 columns
    narrow, _ = report("--encoding", "all", "--columns", 8, policies=("sws",))
    assert list(narrow["policies"]) == [f"sws in {encoding}" for encoding in ENCODINGS[:3]]
    assert "fewer than the 14 cells" in narrow["left_out"]["sws in differential"]
    # what goes with no encoding is refused
    code, _, error = run(
        "report", checkpoint, "--encoding", "all", "--policy", "aras", "--bits", 12
    )
    assert code == 1
    assert "aras searches offsets of words of at most" in error
    code, _, error = run("report", checkpoint, "--encoding", "gray")
    assert code == 1
    assert "`encoding` is 'gray'; choose one of 'twos_complement'" in error
    assert "'all', 'best'" in error


@pytest.mark.slow
def test_a_fault_map_is_of_one_width_of_words(run, checkpoint, tmp_path):
    map_, every = tmp_path / "map.npz", np.zeros((1, 8, 30), bool)
    np.savez(map_, stuck_at_0=every, stuck_at_1=every)
    options = ("--rows", 8, "--policy", "sws", "--encoding", "all", "--faults", map_)
    assert run("report", checkpoint, *options, "--columns", 30)[0] == 0
    code, _, error = run("report", checkpoint, *options)
    assert code == 1
    assert "`--faults` is a map of one width, but words take 8 to 14 cells; give --columns" in error


@pytest.mark.slow
def test_lifetimes_of_several_encodings_are_those_of_each(report):
    options = ("--lifetime", "--crossbars", 2, "--columns", 32)
    policies = ("unsorted", "sws")
    every, printed = report("--encoding", "all", *options, policies=policies)
    for encoding in ENCODINGS:
        alone, _ = report("--encoding", encoding, *options, policies=policies)
        for policy in policies:
            entry = every["policies"][f"{policy} in {encoding}"]
            assert entry["lifetime"] == alone["policies"][policy]["lifetime"]
    pool = "2 crossbars of 8 rows x 32 columns, block schedule"
    assert every["lifetime"]["pool"] == pool
    assert f"Lifetime of a chip with {pool}" in printed
