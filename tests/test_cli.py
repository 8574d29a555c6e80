import json
import subprocess
import sys

import pytest

from brainjax import cli, experiment


def test_help_names_commands_and_exit_codes(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("info", "demo", "run", "bench", "exit codes"))


def test_info_says_what_is_installed(tmp_path, capsys):
    path = tmp_path / "info.json"
    assert cli.main(["info", "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    assert written.keys() == {"devices", "kernels", "running", "memory", "versions"}
    assert written["kernels"].keys() == {"cpu", "cuda"}
    assert written["versions"]["jax"] in capsys.readouterr().out


@pytest.mark.parametrize(("command", "kind"), [("run", "experiments"), ("bench", "benchmarks")])
def test_without_a_name_all_are_listed(command, kind, capsys):
    assert cli.main([command]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == experiment.names(kind)


def test_a_wrong_name_suggests_the_near_ones(capsys):
    assert cli.main(["run", "projektion"]) == experiment.USAGE
    assert "did you mean 'projection'" in capsys.readouterr().err


def test_run_passes_flags_on(tmp_path):
    path = tmp_path / "result.json"
    flags = ["--smoke", "--brains", "3", "--rounds", "4", "--json", str(path)]
    assert cli.main(["run", "projection", *flags]) == 0
    assert [len(of_brain["support"]) for of_brain in json.loads(path.read_text())["results"]] == [
        4
    ] * 3


def test_run_takes_the_setting_that_may_come_first(tmp_path):
    path = tmp_path / "result.json"
    own = str(experiment.load("experiments", "genome_run").OWN)
    assert cli.main(["run", "genome_run", own, "--smoke", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["settings"]["genome"] == own


def test_the_command_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "brainjax.cli", "run", "projection", "--k", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == experiment.USAGE
    assert "k of area 'area' must be in 1..n=10000; got 0" in done.stderr
