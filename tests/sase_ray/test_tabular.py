"""The table of truth: look-up, drawn noise, files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sase_ray.tabular import TabularBenchmark, write_benchmark
from search_spaces.errors import UserError


def test_a_genotype_is_looked_up_at_every_epoch_and_seed(made_up_table) -> None:
    rows = made_up_table.rows.set_index(["genotype", "seed", "epoch"])
    for text in made_up_table.genotypes[::100]:
        for epoch in (1, 2, 3):
            entry = made_up_table.lookup(text, epoch)
            row = rows.loc[(text, 0, epoch)]
            assert (entry.val_loss, entry.val_accuracy) == (row["val_loss"], row["val_accuracy"])
            assert (entry.samples, entry.seconds) == (100 * epoch, 2.0 * epoch)
    first = made_up_table.genotypes[0]
    assert made_up_table.lookup(first).val_loss == rows.loc[(first, 0, 3), "val_loss"]
    assert made_up_table.lookup(first, 2, seed=3).val_loss == rows.loc[(first, 3, 2), "val_loss"]


def test_what_is_not_in_the_table_is_an_error(made_up_table) -> None:
    first, last = made_up_table.genotypes[0], made_up_table.genotypes[-1]
    with pytest.raises(UserError, match="epochs 1 to 3, not 4"):
        made_up_table.lookup(first, 4)
    with pytest.raises(UserError, match=r"trained with the seeds \[0\], not with 1"):
        made_up_table.lookup(last, seed=1)
    with pytest.raises(UserError, match="gap_std"):
        made_up_table.lookup("gap_std-conv3-conv3-gap-gap-affine")


def test_a_training_that_was_lost_stays_lost(make_table) -> None:
    lost = "gap-conv3-fc-gap-pnorm-conv3x3"
    table = make_table(diverged=[lost])
    assert not table.lookup(lost, 1).diverged
    for epoch in (2, 3):
        assert table.lookup(lost, epoch).diverged
        assert table.draw(lost, epoch, seed=5).diverged
    assert table.regret(lost) == np.inf
    assert np.isfinite(table.mean_regret())


def test_drawn_trainings_have_the_spread_and_noise_that_were_put_in(make_table) -> None:
    # 0.02 between genotypes and 0.01 noise; the seed's shift is common, so it cancels.
    table = make_table()
    some = table.genotypes[::3]
    scores = np.array([[table.draw(g, seed=s).val_loss for s in range(30)] for g in some])
    truths = np.array([table.truth(g) for g in some])
    assert truths.std() == pytest.approx(0.02, rel=0.15)
    noise = scores - truths[:, None]
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert abs(noise.mean()) < 0.001
    found = table.reliability()
    assert found.genotype**0.5 == pytest.approx(0.02, rel=0.15)
    assert found.residual**0.5 == pytest.approx(0.01, rel=0.1)


def test_a_lucky_start_stays_lucky_over_the_epochs(made_up_table) -> None:
    # The made-up noise is the same at all epochs, so drawn curves keep their distance.
    for seed in range(5):
        text = made_up_table.genotypes[7 * seed]
        curve = [made_up_table.draw(text, epoch, seed=seed).val_loss for epoch in (1, 2, 3)]
        np.testing.assert_allclose(np.diff(curve), -0.2, atol=1e-3)


def test_the_same_seed_draws_the_same_and_another_another(made_up_table) -> None:
    text = made_up_table.genotypes[11]
    drawn = {made_up_table.draw(text, seed=seed).val_loss for seed in range(10)}
    assert len(drawn) > 5
    assert made_up_table.draw(text, seed=4) == made_up_table.draw(text, seed=4)


def test_regret_is_against_the_best_of_the_test_column(made_up_table) -> None:
    ends = made_up_table.rows[
        (made_up_table.rows["seed"] == 0) & (made_up_table.rows["epoch"] == 3)
    ]
    ends = ends.set_index("genotype")
    assert made_up_table.regret(ends["test_loss"].idxmin()) == 0
    worst = ends["test_accuracy"].idxmin()
    expected = ends["test_accuracy"].max() - ends["test_accuracy"].min()
    assert made_up_table.regret(worst, "val_accuracy") == pytest.approx(expected)
    assert made_up_table.best() == ends["val_loss"].idxmin()


def test_a_table_is_read_as_it_was_written(made_up_table, tmp_path) -> None:
    path = tmp_path / "table.parquet"
    write_benchmark(made_up_table.rows, made_up_table.about, path)
    loaded = TabularBenchmark.load(path)
    assert loaded.about == made_up_table.about
    for text in loaded.genotypes[::50]:
        ours, theirs = loaded.lookup(text, 2), made_up_table.lookup(text, 2)
        assert ours.val_loss == pytest.approx(theirs.val_loss, rel=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]


def test_files_that_are_no_tables_are_refused(made_up_table, tmp_path) -> None:
    with pytest.raises(UserError, match="there is no table"):
        TabularBenchmark.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
        TabularBenchmark.load(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="is not a table of sase-ray tabulate"):
        TabularBenchmark.load(tmp_path / "other.parquet")
    part = made_up_table.rows[made_up_table.rows["genotype"] != made_up_table.genotypes[3]]
    write_benchmark(part, made_up_table.about, tmp_path / "part.parquet")
    with pytest.raises(UserError, match="1 genotypes are missing"):
        TabularBenchmark.load(tmp_path / "part.parquet")
