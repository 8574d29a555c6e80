"""Every experiment that is found runs in its smoke settings and writes what it promises."""

import json
import subprocess
import sys
import types
from typing import Any

import golden_genomes
import numpy as np
import pytest

from brainjax import experiment

FIELDS_OF_A_BRAIN = {
    "projection": {"support", "converged_round"},
    "completion": {"recovered"},
    "association": {"overlap_before", "overlap_after"},
    "digits": {"accuracy_overlap", "accuracy_linear"},
    "genome_run": {"neurons", "synapses", "ms_per_burst", "spikes_per_burst"},
    "burst_replay": {"bursts", "mismatches", "mismatches_by_quantity", "first_mismatch"},
}


def each_of(folder, slow):
    """All that are found, those that take long to compile among the slow tests."""
    marks = {name: pytest.mark.slow for name in slow}
    names = [pytest.param(name, marks=marks.get(name, ())) for name in experiment.names(folder)]
    return pytest.mark.parametrize("name", names)


@each_of("experiments", slow=["association", "completion"])
def test_smoke_run_writes_json_and_pictures(name, tmp_path):
    module = experiment.load("experiments", name)
    path, pictures = tmp_path / "result.json", tmp_path / "pictures"
    flags = ["--smoke", "--json", str(path), "--out", str(pictures)]
    assert experiment.main(module, flags) == experiment.OK

    written = json.loads(path.read_text())
    assert written["name"] == name
    assert written["settings"].keys() == vars(module.SMOKE).keys()
    assert len(written["results"]) == module.SMOKE.brains
    for of_brain in written["results"]:
        assert FIELDS_OF_A_BRAIN.get(name, set()) <= of_brain.keys()
    assert written["metrics"]["steps"] > 0
    assert written["wall"]["run_s"] > 0
    assert written["environment"]["jax"]
    assert [drawn.suffix for drawn in pictures.iterdir()] == [".png"] * len(
        list(pictures.iterdir())
    )
    assert any(pictures.iterdir())


def test_the_promised_experiments_are_found():
    assert FIELDS_OF_A_BRAIN.keys() <= set(experiment.names("experiments"))


@pytest.mark.parametrize("name", experiment.names("experiments"))
def test_every_experiment_says_what_it_asks(name):
    module = experiment.load("experiments", name)
    for heading in ("Question:", "Expected:", "Source:", "Run:"):
        assert heading in (module.__doc__ or "")
    assert callable(module.check)
    assert callable(module.main)


@pytest.mark.parametrize("name", experiment.names("experiments"))
def test_settings_are_refused_at_construction(name):
    module = experiment.load("experiments", name)
    with pytest.raises(ValueError, match="brains must be at least 1; got 0"):
        module.Settings(brains=0)
    if hasattr(module.SMOKE, "k"):  # a brain with assemblies
        with pytest.raises(ValueError, match="k of area"):
            module.Settings(k=0)


def test_projection_refuses_what_does_not_fit(monkeypatch, capsys):
    module = experiment.load("experiments", "projection")
    monkeypatch.setattr(module.connectivity, "free_memory", lambda: 30_000_000_000)
    large = module.Settings(n=100_000, k=317, p=0.01, brains=1)
    assert module._weights_dtype(large)[0] == "bfloat16"
    assert module._weights_dtype(module.SMOKE)[0] == "float32"
    code = experiment.main(module, ["--n", "100000", "--brains", "2"])
    assert code == experiment.CANNOT_RUN
    assert "80.0 GB in float32 or 40.0 GB in bfloat16" in capsys.readouterr().err


def fake(run, check=None):
    """An experiment with one setting."""
    module: Any = types.ModuleType("fake")
    module.__file__ = "fake.py"
    settings = experiment.load("experiments", "projection").Settings
    module.Settings, module.SMOKE, module.run = settings, settings(), run
    if check:
        module.check = check
    return module


def test_a_failed_claim_has_its_own_code_and_still_writes(tmp_path, capsys):
    def check(result):
        experiment.claim(result["value"] > 1, "value is above 1; got 0")

    path = tmp_path / "new" / "result.json"
    module = fake(lambda settings: {"value": 0}, check)
    assert experiment.main(module, ["--json", str(path)]) == experiment.CLAIM_FAILED
    assert json.loads(path.read_text())["check"] == "value is above 1; got 0"
    assert "claim failed: value is above 1; got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("too large"), experiment.CANNOT_RUN),
        (ImportError("run pip"), experiment.CANNOT_RUN),
        (ValueError("refused"), experiment.CANNOT_RUN),
        (KeyError("bug"), experiment.CRASHED),
    ],
)
def test_errors_have_their_codes(error, code, capsys):
    def run(settings):
        raise error

    assert experiment.main(fake(run), []) == code
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--brains", "0"], ["--brains", "many"], ["--nonsense"]])
def test_wrong_flags_are_usage_errors(flags, capsys):
    module = experiment.load("experiments", "projection")
    with pytest.raises(SystemExit) as exit_:
        experiment.main(module, flags)
    assert exit_.value.code == experiment.USAGE


@each_of("benchmarks", slow=["ops"])
def test_benchmark_smoke_run_has_both_sides(name, tmp_path):
    path = tmp_path / "result.json"
    module = experiment.load("benchmarks", name)
    assert experiment.main(module, ["--smoke", "--json", str(path)]) == experiment.OK
    rows = json.loads(path.read_text())["rows"]
    assert rows
    assert "jnp" in json.dumps(rows)


def test_parts_of_programs_are_no_programs():
    assert list(experiment.folder("benchmarks").glob("_*.py"))
    assert {"assemblies", "ops"} <= set(experiment.names("benchmarks"))
    assert not any(name.startswith("_") for name in experiment.names("benchmarks"))


def test_a_benchmark_of_several_files_runs_as_a_script():
    script = experiment.folder("benchmarks") / "ops.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == experiment.OK, done.stderr
    assert "python benchmarks/ops.py" in done.stdout


def test_a_replay_counts_and_names_what_differs(tmp_path, capsys):
    """A recording of a burst engine, and one of whose numbers two were changed."""
    module = experiment.load("experiments", "burst_replay")
    arrays = module._record(module.SMOKE)
    for change in (False, True):
        if change:
            arrays["mp"][5, 7] += 1
            arrays["rc"][9, 3] += 1
        path, written = tmp_path / "recording.npz", tmp_path / "result.json"
        np.savez(path, **arrays)
        code = experiment.main(module, ["--vector", str(path), "--json", str(written)])
        assert code == (experiment.CLAIM_FAILED if change else experiment.OK)
    assert "'burst': 6, 'quantity': 'mp', 'element': 7" in capsys.readouterr().err
    replay = json.loads(written.read_text())["results"][0]
    assert replay["mismatches"] == 2
    differing = {name: count for name, count in replay["mismatches_by_quantity"].items() if count}
    assert differing == {"mp": 1, "rc": 1}


def facts(**changed):
    """The meta of a recording, of which something is changed."""
    whole = {"base": 3, "power": 1.0, "flags": {}, "stdp": []} | changed
    return np.array(json.dumps({name: each for name, each in whole.items() if each != "none"}))


def wrapped(offsets):
    """Offsets that fall once, by so much that their differences seem to rise."""
    limits = np.iinfo(np.int64)
    return np.concatenate([offsets[:1], [limits.max, limits.min, -1], offsets[4:]])


WRONG_RECORDINGS: list[tuple[dict[str, Any], str]] = [
    ({"fired_id": lambda ids: ids + 1_000}, "fired_id must be below 63; got 1062"),
    ({"n_refrac": lambda n: n - 9.0}, "n_refrac must be of uint16; got [-"),
    ({"n_threshold": lambda n: n.astype(str)}, "n_threshold must be numbers; got <U"),
    ({"n_area": lambda n: n[:, None]}, "shape of n_area must be (60,); got (60, 1)"),
    ({"n_area": lambda n: n[0]}, "shape of n_area must be (1,); got ()"),
    ({"s_src": lambda n: n[:-1]}, "shape of s_dst must be (299,); got (300,)"),
    ({"s_typ": lambda n: n - 2.0}, "s_typ must be of uint8; got [-"),
    ({"inj_off": lambda n: n[::-1]}, "inj_off must be rising from 0 to 36; got [0]"),
    ({"inj_off": wrapped}, "inj_off must be rising from 0 to 36; got [36]"),
    ({"inj_off": lambda n: n[:1]}, "bursts must be at least 1; got 0"),
    ({"mp": lambda n: n.ravel()}, "shape of mp must be (12, 63); got (756,)"),
    ({"rc": lambda n: n[:-1]}, "shape of rc must be (12, 63); got (11, 63)"),
    ({"fcl_p": lambda n: n[1:]}, "shape of fcl_p must be"),
    ({"meta": lambda _: np.array("[")}, "meta must be JSON; got Expecting value"),
    ({"meta": lambda _: np.array("[1]")}, "meta must be a JSON object; got list"),
    ({"meta": lambda _: facts(stdp="none")}, "got no ['stdp']"),
    ({"meta": lambda _: facts(base="3")}, "base of meta must be 3; got '3'"),
    ({"meta": lambda _: facts(base=3.0)}, "base of meta must be 3; got 3.0"),
    ({"meta": lambda _: facts(power=[1])}, "power of meta must be a number; got [1]"),
    ({"meta": lambda _: facts(flags={"3": [1]})}, "flags of meta must be two flags for each area"),
    ({"meta": lambda _: facts(flags={"4294967296": [1, 1]})}, "by its number below 2^32; got"),
    ({"meta": lambda _: facts(stdp=[[3, 4, 2]])}, "stdp of meta must be mappings: two areas "),
    ({"meta": lambda _: facts(stdp=[[-1, 4, 2, 1, 1, 1]])}, "stdp of meta must be mappings: two "),
    ({"meta": lambda _: facts(stdp=[[3, 2**32, 2, 1, 1, 1]])}, "stdp of meta must be mappings:"),
    ({"meta": lambda _: facts(stdp=[[3, 4, 2.5, 1, 1, 1]])}, "stdp of meta must be mappings:"),
    ({"meta": lambda _: facts(windows=[2])}, "windows of meta must be how many frames the ledger"),
    ({"meta": lambda _: facts(windows={"3": -1})}, "windows of meta must be how many frames the"),
    ({"val": lambda _: np.zeros(3)}, "a recording of the burst engine; got no ['bursts', 'ids']"),
]


@pytest.fixture(scope="module")
def recording():
    module = experiment.load("experiments", "burst_replay")
    return module, module._record(module.SMOKE)


@pytest.mark.parametrize(("changes", "message"), WRONG_RECORDINGS)
def test_a_damaged_recording_is_refused(recording, changes, message, tmp_path, capsys):
    module, arrays = recording
    changed = {name: change(arrays.get(name)) for name, change in changes.items()}
    np.savez(tmp_path / "recording.npz", **(arrays | changed))
    code = experiment.main(module, ["--vector", str(tmp_path / "recording.npz")])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (experiment.CANNOT_RUN, 1)
    assert message in error


def test_a_file_that_is_no_whole_recording_is_refused(recording, tmp_path, capsys):
    module, arrays = recording
    path = tmp_path / "recording.npz"
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"fcl_p.npy") + 60] ^= 16  # in its data
    for data, message in (
        (b"", "must be an npz"),
        (b"nothing of that kind", "must be an npz"),
        (whole[:-1], "must be an npz"),
        (flipped, "must be a whole npz"),
        (None, "vector must be a file"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        assert experiment.main(module, ["--vector", str(path)]) == experiment.CANNOT_RUN
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


def test_a_recording_may_map_between_areas_without_neurons(recording, tmp_path):
    module, arrays = recording
    path = tmp_path / "recording.npz"
    np.savez(path, **(arrays | {"meta": facts(stdp=[[4, 77, 2, 1, 5, 3], [88, 4, 1, 1, 5, 3]])}))
    assert experiment.main(module, ["--vector", str(path)]) == experiment.OK


@pytest.mark.parametrize(
    ("tracked", "learns"),
    [
        ({}, True),
        ({"windows": {"3": 2, "4": 2}}, True),
        ({"windows": {"3": 2, "4": 1}}, False),
        ({"windows": {"3": 2}}, False),
    ],
)
def test_areas_that_the_ledger_forgets_do_not_learn(recording, tracked, learns):
    module, arrays = recording
    meta = facts(stdp=[[3, 4, 2, 1, 5, 3]], **tracked)
    assert bool(module.network_of(arrays | {"meta": meta}).plastic) == learns


def test_what_nothing_reads_of_a_recording_is_named(recording, tmp_path):
    module, arrays = recording
    path = tmp_path / "recording.npz"
    np.savez(path, **(arrays | {"s_delay": arrays["s_w"], "meta": facts(fatigue=True)}))
    with pytest.warns(UserWarning, match="nothing reads fatigue, s_delay"):
        assert experiment.main(module, ["--vector", str(path)]) == experiment.OK


def test_areas_of_a_recording_have_any_number(recording, tmp_path):
    module, arrays = recording
    place = arrays["n_area"].copy()
    place[place == 4], place[place == 5] = 10**7, 2**32 - 1
    # Each sends in full, as it does where no area has flags.
    meta = facts(flags={str(area): [0, 1] for area in np.unique(place)})
    path = tmp_path / "recording.npz"
    np.savez(path, **(arrays | {"n_area": place, "meta": meta}))
    assert experiment.main(module, ["--vector", str(path)]) == experiment.OK


@pytest.mark.filterwarnings("ignore::UserWarning")  # that names what is kept and skipped
@pytest.mark.parametrize(
    ("name", "flags", "more"),
    [
        ("essential", [], 0),
        ("gesture", [], 0),
        ("gesture", ["--strict"], 0),
        ("gesture", ["--unwindowed", "static"], 6),
    ],
)
def test_a_genome_of_feagi_grows_what_feagi_grows(name, flags, more, tmp_path, monkeypatch):
    """Their excitabilities of 100, leaks of 10 and plastic rules without a window need no flag."""
    module = experiment.load("experiments", "genome_run")
    written, facts = tmp_path / "result.json", golden_genomes.facts(name)["connectome"]
    given = [str(golden_genomes.genome(name)), "--bursts", "1", "--json", str(written), *flags]
    monkeypatch.setattr(sys, "argv", ["genome_run.py", *given])
    assert module.main() == experiment.OK
    found = json.loads(written.read_text())["results"][0]
    expected = facts["neurons"], facts["synapses"] + more
    assert (found["neurons"], found["synapses"]) == expected


@pytest.mark.filterwarnings("ignore:morphologies that are not dispatched")
@pytest.mark.parametrize(
    ("flags", "code"),
    [([], experiment.OK), (["--on-unknown", "error"], experiment.CANNOT_RUN)],
)
def test_a_genome_of_undispatched_morphologies_runs_unless_told_otherwise(flags, code, tmp_path):
    module, path = experiment.load("experiments", "genome_run"), tmp_path / "tiled.json"
    tree = json.loads(module.OWN.read_text())
    rules = next(
        rules
        for genes in tree["blueprint"].values()
        for rules in genes["cortical_mapping_dst"].values()
    )
    rules[0]["morphology_id"] = "tile"
    path.write_text(json.dumps(tree))
    flags = ["--bursts", "1", "--genome", str(path), *flags]
    assert experiment.main(module, flags) == code


def test_a_genome_whose_synapses_are_drawn_runs(tmp_path):
    """With an attractivity below 100 percent, a seed decides which synapses there are."""
    module = experiment.load("experiments", "genome_run")
    tree = json.loads(module.OWN.read_text())
    for genes in tree["blueprint"].values():
        genes["synapse_attractivity"] = 50
    path, written = tmp_path / "half.json", tmp_path / "result.json"
    path.write_text(json.dumps(tree))
    synapses = []
    for seed in ("1", "2"):
        flags = ["--bursts", "2", "--genome", str(path), "--seed", seed, "--json", str(written)]
        assert experiment.main(module, flags) == experiment.OK
        synapses.append(json.loads(written.read_text())["results"][0]["synapses"])
    assert synapses[0] != synapses[1]
    assert all(0.4 * 2_449 < count < 0.6 * 2_449 for count in synapses)
