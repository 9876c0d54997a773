"""What is shown of a run under way, on a terminal and in a job's log."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from sase_ray.monitoring.terminal import Display
from sase_ray.results.history import History, SearchOutcome
from sase_ray.results.search_id import SearchId
from search_spaces.genotype import Genotype

SEARCHES = [SearchId(name, seed) for seed in (0, 1) for name in ("random", "tpe-asha")]
GENOTYPE = "gap-fc-affine-pnorm-gap-conv3x3"


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def metrics(name):
    return dict.fromkeys(("random", "tpe-asha"), name)


@pytest.fixture
def make(clock):
    def make(console, **options):
        return Display(console, SEARCHES, 1000, metrics("val_loss"), clock=clock, **options)

    return make


def terminal(width):
    options = {"force_terminal": True, "width": width, "color_system": None, "record": True}
    return Console(file=io.StringIO(), **options)


def log():
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def row(trial, samples, loss, incumbent="gap-fc-affine", **extra):
    values = {"incumbent_val_loss": loss, "incumbent_val_accuracy": 1 - loss}
    return {"trial": trial, "search_samples": samples, "incumbent": incumbent, **values, **extra}


def outcome(rows=()):
    history = History("val_loss", "min", evaluations=list(rows))
    return SearchOutcome("random", 0, [(Genotype.parse(GENOTYPE), 0.5)], "", history, 0, 0.0)


def run_half(display, clock):
    """Two of four searches under way, one at its end, after 100 seconds."""
    for label in SEARCHES[:3]:
        display.search_began(label)
    for trial in "123":
        display.trial_began(SearchId("random", 0), trial)
    display.trial_began(SearchId("tpe-asha", 0), "1")
    clock.now += 50
    display.evaluated(SearchId("random", 0), row("1", 300, 0.5))
    display.trial_ended(SearchId("random", 0), "1", None)
    display.trial_ended(SearchId("random", 0), "2", "out of luck")
    display.evaluated(SearchId("tpe-asha", 0), row("1", 500, 0.25, "pnorm-fc-fc"))
    clock.now += 50
    display.evaluated(SearchId("random", 0), row("3", 500, 0.4, "cov-fc-fc"))
    display.search_ended(SearchId("random", 1), outcome())


def shown(display, width):
    console = display.console
    console.print(display.render())
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_has_a_line_a_strategy(make, clock, width):
    display = make(terminal(width))
    run_half(display, clock)
    failed, head, random, tpe, last = shown(display, width)
    assert failed == "search random/seed0: trial 2 failed: out of luck"
    assert head.split() == [
        "strategy", "budget", "ended", "trials", "run", "fail", "val_loss", "incumbent",
    ]  # fmt: skip
    # (500 + 1000) of 2000 samples, 1 of 2 searches, 2 trials ended, 1 running, 1 failed
    name, _, *cells = re.sub(r"[━╸╺]+", "=", random).split()
    assert (name, cells) == ("random", ["75%", "1/2", "2", "1", "1", "0.4000", "cov-fc-fc"])
    name, _, *cells = re.sub(r"[━╸╺]+( *[━╸╺]+)*", "=", tpe).split()
    assert (name, cells) == ("tpe-asha", ["25%", "0/2", "0", "1", "0", "0.2500", "pnorm-fc-fc"])
    assert last.startswith("0:01:40 passed, about ")
    assert last.endswith(" left, 1 failed")


def test_a_long_genotype_takes_no_second_line(make, clock):
    display = make(terminal(80))
    display.search_began(SearchId("random", 0))
    genotype = "gap_gmp-conv3_x2-conv3_x3-gap_skew-l2norm-conv3x3_x2"
    display.evaluated(SearchId("random", 0), row("1", 10, 1.0, genotype))
    lines = shown(display, 80)
    assert len(lines) == 4
    assert lines[1].endswith("…")
    wide = make(terminal(140))
    wide.evaluated(SearchId("random", 0), row("1", 10, 1.0, genotype))
    assert lines != shown(wide, 140)
    assert any(genotype in line for line in shown(wide, 140))


def test_an_accuracy_is_better_large(clock):
    display = Display(terminal(100), SEARCHES, 1000, metrics("val_accuracy"), clock=clock)
    display.evaluated(SearchId("random", 0), row("1", 100, 0.5, "worse"))
    display.evaluated(SearchId("random", 1), row("1", 100, 0.3, "better"))
    assert any("0.7000  better" in line for line in shown(display, 100))


def test_the_time_left_is_that_of_the_work_left(make, clock):
    display = make(log(), finals=4, final_samples=500)
    assert "minutes left" not in display.numbers()
    display.evaluated(SearchId("random", 0), row("1", 10, 1.0))
    # 10 samples a second; 4 searches of 1000 and 4 final trainings of 500 make 6000.
    for second in range(1, 100):
        clock.now += 1
        display.evaluated(SearchId("random", 0), row("1", 10 * second, 1.0))
    assert display.numbers()["minutes left"] == pytest.approx((6000 - 990) / 10 / 60, rel=0.05)
    display.finals_known(2)
    assert display.numbers()["minutes left"] == pytest.approx((5000 - 990) / 10 / 60, rel=0.05)
    for label in SEARCHES:
        display.search_ended(label, outcome())
    display.final_ended("gap", False)
    display.final_ended("se", True)
    assert display.numbers()["minutes left"] == 0


def test_numbers_are_what_is_shown(make, clock):
    display = make(terminal(80), finals=2)
    run_half(display, clock)
    display.search_failed(SearchId("tpe-asha", 1), "no room")
    display.final_ended("gap", True)
    numbers = dict(display.numbers())
    assert numbers.pop("minutes left") > 0
    assert numbers == {
        "budget used": 0.75,
        "searches ended": 2,
        "trials running": 2,
        "trials ended": 2,
        "failures": 3,
        "final trainings ended": 1,
        "budget used by random": 0.75,
        "budget used by tpe-asha": 0.75,
    }


def test_a_search_that_begins_again_has_no_running_trials(make):
    display = make(log())
    display.search_began(SearchId("random", 0))
    display.trial_began(SearchId("random", 0), "1")
    display.search_began(SearchId("random", 0))
    assert display.numbers()["trials running"] == 0
    assert display.console.file.getvalue().count("begins") == 1


def test_a_search_of_before_an_interruption_is_known_at_once(make):
    display = make(log())
    display.search_began(SearchId("random", 0))
    rows = [row("1", 400, 1.0), row("2", 900, 0.7)]
    display.search_recalled(SearchId("random", 0), outcome(rows))
    display.search_ended(SearchId("random", 0), outcome(rows))
    assert display.numbers()["trials ended"] == 2
    assert display.console.file.getvalue().splitlines() == [
        "search random/seed0: begins, budget 1,000 samples",
        f"search random/seed0: ended with {GENOTYPE}",
    ]


def test_a_log_has_plain_lines_now_and_then(make, clock):
    display = make(log(), finals=2, final_samples=100)
    with display.shown():
        display.search_began(SearchId("random", 0))
        for samples in range(20, 1001, 20):
            clock.now += 1
            display.evaluated(SearchId("random", 0), row("1", samples, 0.5))
        display.search_ended(SearchId("random", 0), outcome())
        display.search_failed(SearchId("random", 1), "[bold]no room")
        display.final_ended("gap", False)
    text = display.console.file.getvalue()
    lines = text.splitlines()
    assert "\x1b" not in text
    assert len(lines) == 14
    assert lines[0] == "search random/seed0: begins, budget 1,000 samples"
    assert lines[1].startswith("search random/seed0: 10% of the budget, val_loss 0.5000  gap-fc-")
    assert re.search(r"; about 0:0\d:\d\d left$", lines[1])
    assert lines[-3:-1] == [
        f"search random/seed0: ended with {GENOTYPE}",
        "search random/seed1: failed: [bold]no room",
    ]
    assert lines[-1].startswith("final training 1 of 2: gap; about ")


def test_a_terminal_is_drawn_anew_and_left_with_the_last_state(make, clock):
    console = terminal(100)
    display = make(console)
    with display.shown():
        run_half(display, clock)
        time.sleep(0.7)  # a redraw
        console.print("a note")
    text = console.file.getvalue()
    assert text.count("tpe-asha") >= 2
    assert "\x1b" in text
    assert "a note" in text
    assert text.rindex("75%") > text.index("a note"), "the lines stay below what is said"
    assert "begins" not in text
