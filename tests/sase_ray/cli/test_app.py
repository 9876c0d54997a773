"""The command line as a user meets it, above all when what was asked for is wrong."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from sase_ray.cli import app
from sase_ray.strategies.catalogue import strategies
from search_spaces.backbones import backbones
from search_spaces.genotype import PUBLISHED
from search_spaces.space import SearchSpace, space_names
from trainables.data import datasets


@pytest.fixture
def refuse(tmp_path, monkeypatch, capsys):
    """Run a command line that must be refused; returns the one line, checks that all is clean."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SASE_DATA", raising=False)
    before = {}

    def run(*arguments):
        before.update({p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")})
        monkeypatch.setattr(sys, "argv", ["sase-ray", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        printed = capsys.readouterr()
        assert ended.value.code == 2
        assert printed.out == ""
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
        return _one_line(printed.err)

    return run


def _one_line(stderr):
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert stderr.endswith("\n")
    assert "Traceback" not in stderr
    return stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["compare", "--strategies", "randon,darts"], ["'randon'", "did you mean 'random'"]),
        (["search", "dart"], ["'dart'", "did you mean 'darts'"]),
        (["compare", "--space", "sase_tinny"], ["'sase_tinny'", "did you mean 'sase_tiny'"]),
        (["compare", "--dataset", "digit"], ["'digit'", "did you mean 'digits'"]),
        (["compare", "--backbone", "resnet21"], ["'resnet21'", "did you mean 'resnet"]),
        (["compare", "--baselines", "sse"], ["'sse'", "did you mean"]),
        (["compare", "--set", "proxy.epoch=5"], ["proxy.epoch", "did you mean 'epochs'"]),
        (["compare", "--set", "proxy.epochs=many"], ["proxy.epochs", "many"]),
        (["compare", "--budget", "10"], ["budget 10 is too small", "sees"]),
        (["compare", "--budget", "lots"], ["budget", "lots"]),
        (["compare", "--seeds", "0"], ["seeds", "greater than or equal to 1"]),
        (["compare", "--strategies", ""], ["strategies"]),
        (["compare", "--metric", "accuracy"], ["metric", "val_loss"]),
        (["compare", "--config", "none.yaml"], ["none.yaml"]),
        (["compare", "--dataset", "cifar10"], ["cifar10", "SASE_DATA", "download"]),
        (["show", "gap-fc-affine"], ["expected 6 operations", "got 3"]),
        (
            ["show", "gap_gm-fc-affine-pnorm-gap-conv3x3_x2"],
            ["'gap_gm'", "channel_squeeze", "did you mean 'gap_gmp'", "allowed are gap"],
        ),
        (["show", str(PUBLISHED), "--space", "sasse"], ["'sasse'", "did you mean 'sase'"]),
        (["show", str(PUBLISHED), "--backbone", "resnet21"], ["'resnet21'"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("compare", "search", "show") else "",
)
def test_a_mistake_is_one_line_and_nothing_is_written(arguments, told, refuse):
    line = refuse(*arguments)
    for part in told:
        assert part in line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("seeds: [1]", "my.yaml: seeds"),
        ("proxy: {epochs: many}", "my.yaml: proxy.epochs"),
        ("strategy: [random]", "unknown key 'strategy': did you mean 'strategies'"),
        ("- random", "expected keys and values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_one_line(content, told, refuse, tmp_path):
    (tmp_path / "my.yaml").write_text(content)
    assert told in refuse("compare", "--config", "my.yaml")


def test_an_existing_results_folder_is_refused_and_left_alone(refuse, tmp_path):
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "strategies.csv").write_text("precious")
    for command in (["compare"], ["search", "random"]):
        assert "results/mine exists" in refuse(*command, "--run", "mine")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus-per-trial", "64"], "gpus_per_trial is 64, but the largest node"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at address '127.0.0.1:1'"),
        (["--strategies", "randon"], "did you mean 'random'"),
    ],
    ids=["more GPUs than there are", "nobody at the address", "unknown strategy"],
)
def test_a_mistake_in_a_real_process(arguments, told, command, tmp_path):
    done = command("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert told in _one_line(done.stderr)
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_catalogues_list_everything_with_its_source(command):
    catalogues = {
        "strategies": [(s.name, s.source) for s in strategies().values()],
        "spaces": [(name, SearchSpace.load(name).source) for name in space_names()],
        "datasets": [(d.name, d.source) for d in datasets()],
        "backbones": [(b.name, b.source) for b in backbones()],
    }
    with ThreadPoolExecutor() as pool:
        ended = dict(zip(catalogues, pool.map(command, catalogues), strict=True))
    for name, rows in catalogues.items():
        done = ended[name]
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        for row in rows:
            line = next(x for x in done.stdout.splitlines() if x.startswith(f"│ {row[0]} "))
            assert row[1] in line


@pytest.mark.slow
def test_show_tells_what_a_genotype_is(command):
    done = command("show", str(PUBLISHED), "--channels", "16")
    assert done.returncode == 0, done.stderr
    for edge, op in PUBLISHED.edges().items():
        assert any(edge in line and f" {op} " in line for line in done.stdout.splitlines())
    assert "gate = (g_c + g_s) / 2" in done.stdout
    from search_spaces.block import SASE
    from search_spaces.network import NetworkSpec

    own = sum(p.numel() for p in SASE(16, PUBLISHED, size=(14, 14)).parameters())
    assert f"16 channels, 14x14: {own:,} parameters" in done.stdout
    host = NetworkSpec("resnet20", 10, 3, (32, 32)).with_genotype(PUBLISHED)
    assert f"{sum(p.numel() for p in host.parameters()):,} parameters" in done.stdout


def test_help_does_not_wait_for_torch(tmp_path):
    script = "import sys; from sase_ray.cli.app import app; "
    script += "app(['--help'], standalone_mode=False); "
    script += "assert not {'torch', 'ray'} & set(sys.modules), 'slow'"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compare" in done.stdout


def test_options_reach_the_configuration(tmp_path, monkeypatch):
    heard = {}

    def compare(settings, console):
        heard["settings"] = settings
        raise SystemExit(0)

    monkeypatch.setattr("sase_ray.commands.compare.compare", compare)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"budget": 5, "seeds": 5, "run": "five"}))
    arguments = "compare --strategies random,,tpe --baselines se --budget 1e6 --space sase_tiny"
    arguments += " --backbone resnet18 --metric val_accuracy --data-root /data --results out"
    arguments += " --address a:1 --cpus-per-trial 2 --gpus-per-trial 0.5 --set final.seeds=2"
    monkeypatch.setattr(sys, "argv", ["x", *arguments.split(), "-c", str(tmp_path / "my.yaml")])
    with pytest.raises(SystemExit):
        app.main()
    settings = heard["settings"]
    assert settings.strategies == ["random", "tpe"]
    assert settings.baselines == ["se"]
    assert (settings.budget, settings.seeds, settings.run) == (1_000_000, 5, "five")
    assert (settings.space, settings.backbone.name) == ("sase_tiny", "resnet18")
    assert (settings.metric, settings.data.root, settings.results) == (
        "val_accuracy", "/data", "out",
    )  # fmt: skip
    assert settings.resources.model_dump(exclude_unset=True) == {
        "address": "a:1", "cpus_per_trial": 2, "gpus_per_trial": 0.5,
    }  # fmt: skip
    assert settings.final.seeds == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reliability", "--out", "x"], "No such option: --out"),
        (["nosuch"], "No such command 'nosuch'"),
        (["compare", "x"], "Got unexpected extra argument"),
        (["search"], "Missing argument 'strategy'"),
    ],
)
def test_what_the_command_line_does_not_know_ends_with_code_2(arguments, said, command) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert said in done.stderr
