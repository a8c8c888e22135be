"""Rows of several tables joined: by what names them, or in order, and never by a guess."""

import numpy as np
import pandas as pd
import pytest

from deq_fusion.own_data.join import join

N = 40
RNG = np.random.default_rng(0)
NAMES = np.array([f"P{i}" for i in range(N)])
A, B, Y = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 2)), RNG.choice(["red", "white"], N)


def frame(values, names=None, column="patient", **more):
    made = pd.DataFrame(
        values, columns=[f"{'ab'[values.shape[1] == 2]}{i}" for i in range(values.shape[1])]
    )
    if names is not None:
        made.insert(0, column, names)
    return made.assign(**more)


def shuffled(made, seed=1):
    return made.sample(frac=1, random_state=seed).reset_index(drop=True)


def test_arrays_are_joined_in_order():
    joined = join({"a": A, "b": B}, Y)
    np.testing.assert_array_equal(joined.views["a"], A)
    np.testing.assert_array_equal(joined.target, Y)
    assert joined.present.all() and joined.said == (f"{N} rows, joined in order",)


@pytest.mark.parametrize("id", [None, "patient"])
def test_rows_are_joined_by_ids_whatever_their_order(id):
    labels = frame(np.zeros((N, 0)), NAMES, kind=Y)
    tables = {"a": shuffled(frame(A, NAMES), 1), "b": shuffled(frame(B, NAMES), 2)}
    joined = join(tables, labels.set_index("patient")["kind"], id=id)
    np.testing.assert_array_equal(joined.views["a"].to_numpy(), A)
    np.testing.assert_array_equal(joined.views["b"].to_numpy(), B)
    np.testing.assert_array_equal(joined.target, Y)
    assert joined.said == (f"rows joined by patient: {N} of {N} in all tables",)


@pytest.mark.parametrize("named", [True, False])
def test_rows_are_joined_by_the_frames_own_index(named):
    a, b = (frame(x).set_axis(NAMES).rename_axis("patient" if named else None) for x in (A, B))
    y = pd.Series(Y, NAMES)
    joined = join({"a": a.sample(frac=1, random_state=3), "b": b.sample(frac=1, random_state=4)}, y)
    np.testing.assert_array_equal(joined.views["a"].to_numpy(), A)
    np.testing.assert_array_equal(joined.views["b"].to_numpy(), B)
    np.testing.assert_array_equal(joined.target, Y)


def test_files_are_joined_by_what_they_share(tmp_path):
    shuffled(frame(A, NAMES), 1).to_csv(tmp_path / "a.csv", index=False)
    shuffled(frame(B, NAMES), 2).to_parquet(tmp_path / "b.parquet")
    shuffled(pd.DataFrame({"patient": NAMES, "kind": Y}), 5).to_csv(
        tmp_path / "y.tsv", sep="\t", index=False
    )
    joined = join({"a": tmp_path / "a.csv", "b": tmp_path / "b.parquet"}, f"{tmp_path}/y.tsv:kind")
    where = [list(NAMES).index(name) for name in joined.names]
    np.testing.assert_allclose(joined.views["a"].to_numpy(), A[where])
    np.testing.assert_allclose(joined.views["b"].to_numpy(), B[where])
    np.testing.assert_array_equal(joined.target, Y[where])


def test_numbers_are_ids_where_they_are_named(tmp_path):
    ids = np.arange(1000, 1000 + N)
    frame(A, ids).to_csv(tmp_path / "a.csv", index=False)
    np.savez(tmp_path / "b.npz", b=B[::-1], patient=ids[::-1].astype(float))
    y = pd.Series(Y, ids)
    joined = join({"a": tmp_path / "a.csv", "b": tmp_path / "b.npz"}, y, id="patient")
    np.testing.assert_array_equal(joined.views["b"], B)
    np.testing.assert_array_equal(joined.target, Y)


def test_a_row_that_a_table_lacks_is_an_absent_modality():
    y = pd.Series(Y, NAMES)
    joined = join({"a": frame(A, NAMES), "b": frame(B, NAMES)[5:]}, y)
    np.testing.assert_array_equal(joined.present, np.stack([np.ones(N), np.arange(N) >= 5], 1))
    assert joined.views["b"][:5].isna().all(axis=None)
    assert joined.said[0] == "rows joined by patient: 35 of 40 in all tables; b lacks 5"


def test_rows_without_target_or_in_no_table_are_left_out_and_said():
    y = pd.Series(Y, NAMES)[:30]
    joined = join({"a": frame(A, NAMES)[2:], "b": frame(B, NAMES)[2:]}, y)
    assert list(joined.names) == list(NAMES[2:30]) and joined.present.all()
    assert "10 of a's rows have no target, and are left out" in joined.said
    assert "2 rows of the target are in no table, and are left out" in joined.said


def test_empty_rows_are_absent_too():
    a, b = A.copy(), np.repeat(B[:, None], 4, axis=1)
    b[3:6] = np.nan
    a[4] = np.nan
    joined = join({"a": a, "b": b}, Y)
    assert len(joined.target) == N - 1
    np.testing.assert_array_equal(joined.present.sum(axis=0), [N - 1, N - 3])
    assert "3 rows of b are empty, which counts as absent" in joined.said
    assert "1 rows are empty in every table, and are left out" in joined.said


def test_target_groups_and_weights_are_no_features(tmp_path):
    group, weight = np.arange(N) // 2, np.linspace(1, 2, N)
    table = frame(A, kind=Y, house=group, w=weight)
    table.to_csv(tmp_path / "a.csv", index=False)
    joined = join(
        {"a": tmp_path / "a.csv", "b": B}, f"{tmp_path}/a.csv:kind", groups="house", weights="w"
    )
    assert list(joined.views["a"].columns) == ["a0", "a1", "a2"]
    np.testing.assert_array_equal(joined.groups, group)
    np.testing.assert_allclose(joined.weights, weight)
    assert "column kind of a is the target, and no feature" in joined.said
    assert "column house of a is the groups, and no feature" in joined.said
    of_frame = join({"a": table, "b": B}, "kind", groups=group)
    assert list(of_frame.views["a"].columns) == ["a0", "a1", "a2", "house", "w"]


def test_groups_may_stand_in_several_tables():
    group = [f"g{i // 2}" for i in range(N)]
    tables = {"a": frame(A, NAMES, house=group)[:30], "b": frame(B, NAMES, house=group)[10:]}
    joined = join(tables, pd.Series(Y, NAMES), groups="house", id="patient")
    np.testing.assert_array_equal(joined.groups, group)
    tables["b"].loc[tables["b"].index[3], "house"] = "other"
    refused(
        "groups must be the same in all tables, but in row P13 a has 'g6' and b 'other'",
        tables,
        pd.Series(Y, NAMES),
        groups="house",
        id="patient",
    )


def test_values_without_ids_follow_the_targets_order():
    tables = {"a": frame(A, NAMES)[1:], "b": frame(B, NAMES)[1:]}
    weights = np.arange(N)
    joined = join(tables, pd.Series(Y, NAMES), weights=weights)
    np.testing.assert_array_equal(joined.weights, weights[1:])
    joined = join(tables, Y[1:], weights=pd.Series(weights, NAMES))
    np.testing.assert_array_equal(joined.weights, weights[1:])


def test_several_labels_keep_their_names():
    labels = pd.DataFrame({"tall": np.arange(N) % 2, "old": np.arange(N) % 3 == 0}).astype(int)
    assert list(join({"a": A}, labels).target.columns) == ["tall", "old"]


def test_ids_that_say_the_same_are_one_reading():
    codes = np.array([f"code {i}" for i in range(N)])
    tables = {"a": frame(A, NAMES, code=codes), "b": shuffled(frame(B, NAMES, code=codes))}
    joined = join(tables, pd.Series(Y, NAMES))
    np.testing.assert_array_equal(joined.views["b"][["b0", "b1"]].to_numpy(), B)


def refused(match, tables, y=Y, **options):
    with pytest.raises(ValueError, match=match):
        join(tables, y, **options)


def test_two_readings_are_refused():
    codes = np.array([f"code {i}" for i in range(N)])
    tables = {"a": frame(A, NAMES, code=codes), "b": frame(B, NAMES, code=codes[::-1])}
    refused("both 'patient' and 'code' could be it, and they differ; name one", tables)
    join(tables, pd.Series(Y, NAMES), id="patient")
    ids = np.arange(N)
    numbered = {"a": frame(A, ids), "b": frame(B, ids[::-1])}
    refused("'patient' of a and 'patient' of b name the same rows in another order", numbered)
    refused(
        "'patient' may name the rows of a and b, or be a feature", {**numbered, "b": frame(B, ids)}
    )
    joined = join(numbered, Y, drop=["patient"])
    assert list(joined.views["a"].columns) == ["a0", "a1", "a2"]


def test_an_order_that_names_contradict_is_refused(tmp_path):
    pd.DataFrame({"patient": NAMES[::-1], "kind": Y}).to_csv(tmp_path / "y.csv", index=False)
    tables = {"a": frame(A, NAMES), "b": B}
    refused(
        "'patient' of a and 'patient' of target name the same rows in another order",
        tables,
        f"{tmp_path}/y.csv:kind",
    )
    refused(
        "a target without ids must follow the tables' order, but a and b have different",
        {"a": frame(A, NAMES), "b": frame(B, NAMES[::-1])},
    )


def test_tables_that_cannot_be_joined_are_refused():
    refused("tables must be a dict of at least one", {})
    refused("tables must be a dict of at least one, such as .*, got ndarray", A)
    refused("a has 40 and b 39", {"a": A, "b": B[1:]})
    refused("target must have 40 entries, one for each row, got 39", {"a": A}, Y[1:])
    refused("groups must have 40 entries, one for each row, got 7", {"a": A}, groups=np.zeros(7))
    refused("groups must be one column, got 2", {"a": A}, groups=np.zeros((N, 2)))
    refused(
        "every table must have the id 'patient', but b has no columns",
        {"a": frame(A, NAMES), "b": B},
        id="patient",
    )
    refused(
        "every table must have the id 'who', but a has the columns",
        {"a": frame(A, NAMES)},
        id="who",
    )
    twice = np.where(np.arange(N) == 1, "P0", NAMES)
    refused(
        "unique in every table, but b has 'P0' 2 times",
        {"a": frame(A, NAMES), "b": frame(B, twice)},
    )
    gap = np.where(np.arange(N) == 1, None, NAMES)
    refused(
        "there in every row, but row 1 of b has none",
        {"a": frame(A, NAMES), "b": frame(B, gap)},
        id="patient",
    )
    low = np.array([name.lower() for name in NAMES])
    refused(
        r"tables must share ids, but b has none of the target's 'patient' \('p0' and so on, where",
        {"a": frame(A, NAMES), "b": frame(B, low)},
        pd.Series(Y, NAMES),
    )
    refused("drop must list columns of the tables, got 'z'", {"a": frame(A)}, drop=["z"])
    refused(
        "table b must have a column that is a feature",
        {"a": frame(A, NAMES), "b": frame(A, NAMES)[["patient"]]},
    )


def test_names_that_nothing_has_are_refused(tmp_path):
    pd.DataFrame({"kind": Y, "other": Y}).to_csv(tmp_path / "y.csv", index=False)
    refused(
        "the target must be a column of a table, FILE:column or a file, got 'kind'",
        {"a": frame(A)},
        "kind",
    )
    refused(
        "the target must be a column of .*y.csv, got 'none'", {"a": A}, f"{tmp_path}/y.csv:none"
    )
    refused("the target must be one column, but .*y.csv has", {"a": A}, tmp_path / "y.csv")
    refused("the groups must be a column of a table", {"a": frame(A)}, groups="house")


def test_targets_of_files(tmp_path):
    np.save(tmp_path / "y.npy", Y)
    pd.DataFrame({"kind": Y}).to_csv(tmp_path / "y.csv", index=False)
    labels = pd.DataFrame({"p": np.arange(N) % 2, "q": np.arange(N) % 3 > 0}).astype(int)
    labels.to_csv(tmp_path / "l.csv", index=False)
    for name in ("y.npy", "y.csv", "y.csv:kind"):
        np.testing.assert_array_equal(join({"a": A}, f"{tmp_path}/{name}").target, Y)
    np.testing.assert_array_equal(join({"a": A}, f"{tmp_path}/l.csv:p,q").target, labels)


def test_an_index_that_only_counts_is_no_other_order_in_silence():
    a, b = (pd.DataFrame(x).sample(frac=1, random_state=i) for i, x in enumerate((A, B)))
    joined = join({"a": a, "b": b}, pd.Series(Y)[a.index])
    np.testing.assert_array_equal(joined.views["a"].to_numpy(), A[a.index])
    np.testing.assert_array_equal(joined.views["b"].to_numpy(), B[a.index])
    np.testing.assert_array_equal(join({"a": a}, Y[a.index]).target, Y[a.index])
    refused(
        "the target must have the rows' ids, or .* counts 0, 1, 2, ... where 'index' says another",
        {"a": a, "b": b},
        pd.Series(Y),
    )
    refused("the groups must have the rows' ids", {"a": a}, Y, groups=pd.Series(np.arange(N) // 2))
    refused(
        "'index' of a and 'index' of b name the same rows in another order",
        {"a": a, "b": pd.DataFrame(B)},
    )
    refused("'index' of b and 'index' of target name the same rows", {"a": A, "b": b}, pd.Series(Y))


def test_names_under_other_names_are_no_other_order_in_silence(tmp_path):
    a, b = frame(A, NAMES), frame(B, NAMES[::-1], column="Patient")
    refused(
        "'patient' of a and 'Patient' of b name the same rows in another order, .* call them alike",
        {"a": a, "b": b},
    )
    refused(
        "'patient' of a and 'index' of target",
        {"a": frame(A, NAMES), "b": B},
        pd.Series(Y, NAMES[::-1]),
    )
    labels = pd.DataFrame({"Patient": NAMES[::-1], "kind": Y})
    labels.to_csv(tmp_path / "y.csv", index=False)
    tables = {"a": a, "b": frame(B, NAMES)}
    refused("'patient' of a and 'Patient' of target", tables, f"{tmp_path}/y.csv:kind")
    refused("'patient' of a and 'Patient' of groups", tables, groups=f"{tmp_path}/y.csv:kind")
    refused(
        "'index' of a and 'index' of weights name the same rows",
        {"a": frame(A).set_axis(NAMES), "b": B},
        weights=pd.Series(np.ones(N), NAMES[::-1]),
    )


@pytest.mark.parametrize("seed", range(10))
def test_joins_are_those_of_a_merge(seed):
    rng = np.random.default_rng(seed)
    parts = []
    for values in (A, B):
        kept = rng.permutation(N)[: rng.integers(25, N + 1)]
        parts.append(frame(values, NAMES).iloc[kept])
    labels = pd.DataFrame({"patient": NAMES, "kind": Y}).iloc[rng.permutation(N)[:35]]
    merged = labels
    for part in parts:
        merged = merged.merge(part, on="patient", how="left")
    merged = merged[merged[["a0", "b0"]].notna().any(axis=1)]
    joined = join(dict(zip("ab", parts, strict=True)), labels.set_index("patient")["kind"])
    assert list(joined.names) == merged["patient"].tolist()
    np.testing.assert_array_equal(joined.target, merged["kind"])
    for name, view in joined.views.items():
        np.testing.assert_array_equal(view, merged[list(view.columns)])
        np.testing.assert_array_equal(
            joined.present[:, "ab".index(name)], merged[f"{name}0"].notna()
        )


def test_what_is_no_feature_may_be_of_any_kind():
    days = pd.date_range("2020-01-01", periods=N)
    houses = [f"{i // 2}b" if i > 35 else str(i // 2) for i in range(N)]
    table = frame(A, NAMES, day=days, house=houses, ratio=np.where(np.arange(N) == 3, np.inf, 1.0))
    refused("column day of table a must hold numbers or words, got datetime64", {"a": table})
    refused(
        "column house of table a must hold .* such as '18b'", {"a": table}, drop=["day", "ratio"]
    )
    joined = join({"a": table}, Y, groups="house", drop=["day", "ratio"])
    np.testing.assert_array_equal(joined.groups, houses)
    assert list(joined.views["a"].columns) == ["a0", "a1", "a2"]
    by_house = frame(A).assign(house=[f"{i}b" if i > 35 else str(i) for i in range(N)])
    assert list(join({"a": by_house}, Y, id="house").views["a"].columns) == ["a0", "a1", "a2"]


def test_whole_numbers_stay_so_where_a_table_lacks_rows():
    house = np.arange(N) // 2
    a, b = frame(A, NAMES, house=house), frame(B, NAMES, house=house)
    joined = join({"a": a[:-3], "b": b[5:]}, pd.Series(Y, NAMES), groups="house")
    np.testing.assert_array_equal(joined.groups, house)
    assert joined.groups.dtype.kind == "i"


def test_each_of_several_tables_tells_the_target_of_rows_that_others_lack():
    kind = np.arange(N) % 2
    a, b = frame(A, NAMES, kind=kind), frame(B, NAMES, kind=kind)
    joined = join({"a": a[5:], "b": b[:-3]}, "kind")
    assert sorted(joined.names) == sorted(NAMES)
    expected = pd.Series(kind, NAMES)[joined.names]
    np.testing.assert_array_equal(joined.target, expected)
    assert joined.target.dtype.kind == "i"
    np.testing.assert_array_equal(joined.present.sum(axis=0), [N - 5, N - 3])


def test_ids_that_a_float_does_not_hold_are_told_apart():
    ids = 2**60 + np.arange(N)
    tables = {"a": frame(A, ids), "b": shuffled(frame(B, ids))}
    joined = join(tables, pd.Series(Y, pd.Index(ids, name="patient")), id="patient")
    np.testing.assert_array_equal(joined.views["b"].to_numpy(), B)
    far = {"a": frame(A, ids), "b": frame(B, ids + 10**6)}
    refused("tables must share ids", far, pd.Series(Y, pd.Index(ids, name="patient")), id="patient")


@pytest.mark.parametrize("id", ["patient", None])
def test_a_frame_that_holds_the_ids_is_joined_by_them_and_they_are_no_value(id):
    out = shuffled(pd.DataFrame({"patient": NAMES, "kind": Y}), 7)
    ward = shuffled(pd.DataFrame({"ward": np.arange(N) // 4, "patient": NAMES}), 8)
    weight = shuffled(pd.DataFrame({"patient": NAMES, "w": np.arange(1.0, N + 1)}), 9)
    tables = {"a": shuffled(frame(A, NAMES)), "b": shuffled(frame(B, NAMES), 2)}
    joined = join(tables, out, groups=ward, weights=weight, id=id)
    where = [list(NAMES).index(name) for name in joined.names]
    assert list(joined.names) == list(out["patient"])
    np.testing.assert_array_equal(joined.target, Y[where])
    np.testing.assert_array_equal(joined.groups, np.arange(N)[where] // 4)
    np.testing.assert_array_equal(joined.weights, np.arange(1.0, N + 1)[where])
    np.testing.assert_array_equal(joined.views["a"], A[where])
    labels = out.assign(p=np.arange(N) % 2, q=np.arange(N) % 3 > 0).drop(columns="kind")
    assert list(join(tables, labels, id=id).target.columns) == ["p", "q"]
    refused("must be a column beside the id 'patient', got the id alone", tables, out[["patient"]])


@pytest.mark.parametrize(
    "what, argument", [("target", "y"), ("groups", "groups"), ("weights", "sample_weight")]
)
def test_an_index_that_is_not_the_asked_id_is_refused_with_the_recipe(what, argument):
    tables = {"a": frame(A, NAMES), "b": frame(B, NAMES)}
    column = pd.Series(np.arange(N) // 2, name="kind")
    told = {"y": Y} | {("y" if what == "target" else what): column}
    recipe = rf"as {argument}=frame.set_index\('patient'\)\['kind'\], .*=\"FILE.csv:kind\""
    refused(
        f"the {what} must name its rows by the id 'patient', but .* counts rows, .*{recipe}",
        tables,
        id="patient",
        **told,
    )
    told["y" if what == "target" else what] = column.set_axis([f"x{i}" for i in range(N)])
    refused(
        "but its index has 'x0' and so on, where the tables have 'P0'", tables, id="patient", **told
    )
    told["y" if what == "target" else what] = column.set_axis(NAMES)[::-1]
    joined = join(tables, told.pop("y"), id="patient", **told)
    assert sorted(joined.names) == sorted(NAMES)


def test_values_without_an_index_are_in_the_order_of_the_target():
    tables = {"a": shuffled(frame(A, NAMES)), "b": frame(B, NAMES)}
    house = [f"h{i // 2}" for i in range(N)]
    joined = join(tables, pd.Series(Y, NAMES), groups=house, id="patient")
    np.testing.assert_array_equal(joined.groups, house)
    assert list(joined.names) == list(NAMES)
