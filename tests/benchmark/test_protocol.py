"""Protocols: the shipped ones load, and every mistake in one is named."""

import copy
import json
import tomllib
from dataclasses import replace

import pytest

from benchmark.errors import SuperbError
from benchmark.protocol import Halving, LanguageModel, SpecAugment, load_protocol
from downstreams import DOWNSTREAMS, PROTOCOLS
from downstreams.load import load_downstream

TEXT = """
name = "toy"
version = 3
summary = "for tests"

[ks]
updates = 100
batch_utterances = 8
accumulate = 2
sampling = "shuffle"
crop_s = 4.0
crops = 3
gain_db = -3.0
first_seed = 7
learning_rates = [1e-3, 1e-2, 1]
schedule = "linear"
warmup = 20
clip_norm = 1
evaluate_every = 10
valid_sampling = "balanced"
select_by = "score-loss"
patience = 4
head_precision = "bfloat16"
standardise = false
halving = [
    { update = 20, keep = 2, by = "loss" },
    { update = 50, keep = 1, by = "score" },
]

[ks.head]
projection = 16

[ks.spec_augment]
time_warp = 5
time_masks = 2
time_width = 40
time_share = 1.0
feature_masks = 4
feature_width = 50
feature_share = 0.5

[ks.lm]
beam = 5
beam_threshold = 25.0
lm_weight = 2.0
word_score = -1.0
"""


def edited(tmp_path, old="", new="", text=TEXT):
    assert not old or text.count(old) == 1, f"{old!r} must stand in the text once"
    path = tmp_path / "toy.toml"
    path.write_text(text.replace(old, new) if old else text)
    return str(path)


def refusal(tmp_path, old, new):
    """Told when the file is read, or when what it leaves to others is still missing."""
    with pytest.raises(SuperbError) as caught:
        load_protocol(edited(tmp_path, old, new), PROTOCOLS).training("ks")
    return str(caught.value)


def of_task(protocol, task):
    """What a protocol says of a built-in task."""
    downstream = load_downstream(task)
    return protocol.training(task, downstream.card.features, downstream.training)


SHIPPED = ["mini", "superb", "superb-s3prl", "superb-whole"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_protocols_cover_every_task(name):
    protocol = load_protocol(name, PROTOCOLS)
    assert protocol.name == name
    for task in DOWNSTREAMS:
        json.dumps(protocol.record(of_task(protocol, task)))


def test_published_values_of_superb():
    protocol = load_protocol("superb", PROTOCOLS)
    asr, ks, sid = (of_task(protocol, task) for task in ("asr", "ks", "sid"))
    assert {ks.head["projection"], sid.head["projection"]} == {256}
    assert (asr.head["projection"], asr.head["hidden"], asr.head["layers"]) == (1024, 1024, 2)
    assert asr.head["frame_s"] == 0
    assert {training.updates for training in (asr, ks, sid)} == {200_000}
    assert {training.batch_utterances for training in (ks, sid)} == {32}
    assert 1e-4 in asr.learning_rates
    assert 1e-4 in ks.learning_rates
    assert {1e-4, 1e-1} < set(sid.learning_rates)
    assert asr.spec_augment is not None
    assert (ks.spec_augment, sid.spec_augment) == (None, None)


def test_superb_s3prl_is_superb_with_what_s3prl_did_in_effect():
    clean, compatible = (load_protocol(name, PROTOCOLS) for name in ("superb", "superb-s3prl"))
    common = {"first_seed": 1337, "learning_rates": (1e-4,), "select_by": "score"}
    changes = {
        "asr": common,
        "sid": common | {"batch_utterances": 8, "accumulate": 4},
        "ks": common | {"gain_db": -3.0, "valid_sampling": "balanced"},
    }
    for task, change in changes.items():
        assert of_task(compatible, task) == replace(of_task(clean, task), **change)
    for task in ("sid", "ks"):
        training = of_task(compatible, task)
        assert training.batch_utterances * training.accumulate == 32
    asr = of_task(compatible, "asr")
    assert (asr.batch_utterances, asr.accumulate) == (16, 1)
    assert asr.spec_augment == SpecAugment(5, 2, 40, 1.0, 4, 50, 1.0)
    assert asr.lm == LanguageModel(5, 25.0, 2.0, -1.0)


def test_superb_crops_speakers_and_superb_whole_does_not():
    crops, whole = (load_protocol(name, PROTOCOLS) for name in ("superb", "superb-whole"))
    assert of_task(crops, "sid").crop_s == 8
    assert of_task(whole, "sid") == replace(of_task(crops, "sid"), crop_s=0.0, crops=1)
    for task in ("asr", "ks"):
        assert of_task(whole, task) == of_task(crops, task)


def test_hashes_of_the_first_results_are_still_found(tmp_path):
    """Those of mini, version 1; a value that came later and changes nothing is not in them."""
    path = derived(
        tmp_path,
        """
name = "mini"
version = 1
base = "mini"
[frames]
halving = [{ update = 300, keep = 2, by = "loss" }, { update = 600, keep = 1, by = "loss" }]
""",
    )
    mini = load_protocol(path, PROTOCOLS)
    speakers = "d165a29d40d14e5fb81f5cb1774ad092266aa2dd5ab544fd770ca9f63f4b90d3"
    records = {task: mini.record(of_task(mini, task)) for task in ("asr", "sid", "ks")}
    assert {task: record["sha256"] for task, record in records.items()} == {
        "asr": "53814e46a95ee06495200ca0221d83b6374c06885f6bce9929289118b107e8b1",
        "sid": speakers,
        "ks": speakers,
    }
    assert records["sid"]["crop_s"] == 0  # recorded all the same


def derived(tmp_path, text, name="derived.toml"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_derived_protocol_says_only_what_it_changes(tmp_path):
    path = derived(
        tmp_path,
        """
name = "mine"
version = 2
base = "superb"
[asr]
updates = 10_000
[asr.head]
hidden = 512
""",
    )
    base, mine = load_protocol("superb", PROTOCOLS), load_protocol(path, PROTOCOLS)
    assert (mine.name, mine.version, mine.summary) == ("mine", 2, "")
    asr = of_task(base, "asr")
    changed = replace(asr, updates=10_000, head={**asr.head, "hidden": 512})
    assert of_task(mine, "asr") == changed
    assert of_task(mine, "ks") == of_task(base, "ks")
    assert mine.record(changed)["sha256"] != base.record(asr)["sha256"]


def test_the_base_may_be_a_file_beside_the_derived_one(tmp_path):
    edited(tmp_path)
    path = derived(tmp_path, 'name = "a"\nversion = 1\nbase = "toy.toml"\n[ks]\npatience = 9\n')
    assert load_protocol(path, PROTOCOLS).training("ks").patience == 9
    assert load_protocol(path, PROTOCOLS).training("ks").updates == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nversion = 1\nbase = "suberb"', "base: unknown protocol 'suberb'.*superb"),
        ('name = "a"\nversion = 1\nbase = 3', "base must be the name of a protocol, got 3"),
        ('name = "a"\nversion = 1\nbase = "derived.toml"', "is based on itself"),
        ('base = "superb"', "needs a name"),
        (
            'name = "a"\nversion = 1\nbase = "superb"\n[ks]\nupdate = 3',
            "unknown value 'update'.*Did you mean updates",
        ),
        ('name = "a"\nversion = 1\nbase = "superb"\n[ks]\nhead = 3', "head must be a table"),
    ],
)
def test_mistakes_in_a_derived_protocol(tmp_path, text, message):
    with pytest.raises(SuperbError, match=message):
        of_task(load_protocol(derived(tmp_path, text), PROTOCOLS), "ks")


KINDS = """
name = "kinds"
version = 1
base = "mini"
[mean]
updates = 3000
clip_norm = 2.0
[mean.head]
projection = 8
[ks]
clip_norm = 4.0
"""
OWN = {"updates": 2500, "head": {"projection": 16, "hidden": 5}}


def test_a_task_over_its_kind_and_its_table_in_the_protocol_over_both(tmp_path):
    protocol = load_protocol(derived(tmp_path, KINDS), PROTOCOLS)
    for task, clip_norm in (("ks", 4.0), ("mine", 2.0)):
        training = protocol.training(task, "mean", OWN)
        assert (training.updates, training.clip_norm) == (2500, clip_norm)
        assert training.head == {"projection": 16, "hidden": 5}
    assert protocol.training("mine", "frames", OWN).clip_norm == 1.0
    over = KINDS + "updates = 2200\n[ks.head]\nhidden = 7\n"
    named = load_protocol(derived(tmp_path, over), PROTOCOLS).training("ks", "mean", OWN)
    assert (named.updates, named.head) == (2200, {"projection": 16, "hidden": 7})


def test_a_hash_tells_values_and_not_where_they_stand(tmp_path):
    mini = load_protocol("mini", PROTOCOLS)
    own = {"updates": 3000, "clip_norm": 2.0, "head": {"projection": 8}}
    kinds = load_protocol(derived(tmp_path, KINDS), PROTOCOLS)
    table = load_protocol(
        derived(tmp_path, KINDS.replace("[mean", "[mine"), "table.toml"), PROTOCOLS
    )
    digests = {
        protocol.record(protocol.training("mine", "mean", values))["sha256"]
        for protocol, values in ((mini, own), (kinds, None), (table, None))
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("features", "own", "message"),
    [
        ("means", OWN, r"task of protocol kinds 'mine'.*a table \[mine\]"),
        ("mean", 3, "training of task mine must be a table"),
        ("mean", {"update": 3}, "training of task mine: unknown value 'update'.*mean updates"),
        ("mean", {"head": {"hidden": 5}}, r"\[mine\.head\]: unknown setting.*'projection'"),
        ("mean", {"updates": "3"}, "updates must be a whole number, got '3'"),
    ],
)
def test_mistakes_in_what_a_task_brings(tmp_path, features, own, message):
    protocol = load_protocol(derived(tmp_path, KINDS), PROTOCOLS)
    with pytest.raises(SuperbError, match=message):
        protocol.training("mine", features, own)


def test_values_arrive_typed(tmp_path):
    protocol = load_protocol(edited(tmp_path), PROTOCOLS)
    assert (protocol.name, protocol.version, protocol.summary) == ("toy", 3, "for tests")
    training = protocol.training("ks")
    assert training.learning_rates == (0.001, 0.01, 1.0)
    assert training.halving == (Halving(20, 2, "loss"), Halving(50, 1, "score"))
    assert training.head == {"projection": 16}
    assert training.spec_augment == SpecAugment(5, 2, 40, 1.0, 4, 50, 0.5)
    assert training.lm == LanguageModel(5, 25.0, 2.0, -1.0)
    assert isinstance(training.clip_norm, float)


def test_unknown_protocol_names_near_matches_and_paths():
    with pytest.raises(SuperbError, match="Did you mean superb") as caught:
        load_protocol("suberb", PROTOCOLS)
    assert "mini, superb" in str(caught.value)
    assert ".toml" in str(caught.value)


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(SuperbError, match=r"unknown protocol .*none\.toml"):
        load_protocol(str(tmp_path / "none.toml"), PROTOCOLS)


def test_uncovered_task(tmp_path):
    protocol = load_protocol(edited(tmp_path), PROTOCOLS)
    with pytest.raises(SuperbError, match=r"task of protocol toy 'kws'.*Did you mean ks"):
        protocol.training("kws")


@pytest.mark.parametrize("text", ["[ks", "name = ", "\xff\xfe"])
def test_not_toml(tmp_path, text):
    path = tmp_path / "toy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SuperbError, match="is not valid TOML"):
        load_protocol(str(path), PROTOCOLS)


@pytest.mark.parametrize(
    ("old", "new"),
    [('name = "toy"', ""), ("version = 3", ""), ("version = 3", 'version = "3"')],
)
def test_needs_a_name_and_a_version(tmp_path, old, new):
    assert "needs a name (text) and a version" in refusal(tmp_path, old, new)


SCALARS = {
    key: value
    for key, value in tomllib.loads(TEXT)["ks"].items()
    if key not in ("halving", "head", "spec_augment", "learning_rates", "lm")
}


@pytest.mark.parametrize("key", SCALARS)
def test_missing_key(tmp_path, key):
    line = next(line for line in TEXT.splitlines() if line.startswith(f"{key} ="))
    told = refusal(tmp_path, line, "")
    assert f"[ks] lacks {key}: add" in told
    assert 'or start from base = "superb"' in told


@pytest.mark.parametrize(
    ("old", "table", "key"),
    [
        ("time_share = 1.0", "[ks].spec_augment", "time_share"),
        (", keep = 1", "[ks].halving", "keep"),
    ],
)
def test_missing_key_of_an_inner_table(tmp_path, old, table, key):
    assert f"{table} lacks {key}" in refusal(tmp_path, old, "")


@pytest.mark.parametrize(
    ("old", "new", "table", "near"),
    [
        ("warmup = 20", "warm_up = 20", "[ks]", "warmup"),
        ("learning_rates = [", "learning_rate = [", "[ks]", "learning_rates"),
        ("[ks.head]", "[ks.heads]", "[ks]", "head"),
        ("keep = 1", "kept = 1", "[ks].halving", "keep"),
        ("time_share = 1.0", "time_shares = 1.0", "[ks].spec_augment", "time_share"),
    ],
)
def test_misspelled_key_is_named_before_the_missing_one(tmp_path, old, new, table, near):
    message = refusal(tmp_path, old, new)
    assert f"{table}: unknown value" in message
    assert f"Did you mean {near}" in message


def test_extra_key_names_near_matches(tmp_path):
    message = refusal(tmp_path, "warmup = 20", "warmup = 20\nwarm_up = 20")
    assert "[ks]" in message
    assert "'warm_up'" in message
    assert "Did you mean warmup" in message
    message = refusal(tmp_path, "time_warp = 5", "time_warp = 5\ntime_wrap = 5")
    assert "[ks].spec_augment" in message
    assert "Did you mean time_warp" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("updates = 100", "updates = 1e2", "[ks].updates must be a whole number, got 100.0"),
        ("updates = 100", "updates = true", "[ks].updates must be a whole number, got True"),
        ("updates = 100", 'updates = "100"', "must be a whole number, got '100'"),
        ("standardise = false", "standardise = 1", "[ks].standardise must be true or false, got 1"),
        ("clip_norm = 1", 'clip_norm = "1"', "[ks].clip_norm must be a number, got '1'"),
        ("clip_norm = 1", "clip_norm = false", "[ks].clip_norm must be a number, got False"),
        ("keep = 1", "keep = 1.0", "[ks].halving.keep must be a whole number"),
        ("time_share = 1.0", "time_share = []", "[ks].spec_augment.time_share must be a number"),
        ("[1e-3, 1e-2, 1]", "1e-3", "[ks].learning_rates must be a list of numbers, got 0.001"),
        ("[1e-3, 1e-2, 1]", '["fast"]', "[ks].learning_rates must be a list of numbers"),
        ("[1e-3, 1e-2, 1]", '["1e-3"]', "[ks].learning_rates must be a list of numbers"),
        ("[1e-3, 1e-2, 1]", "[true]", "[ks].learning_rates must be a list of numbers"),
    ],
)
def test_ill_typed_values(tmp_path, old, new, expected):
    assert expected in refusal(tmp_path, old, new)


@pytest.mark.parametrize("value", ["3", '"never"', "[3]", "{ update = 20, keep = 1 }"])
def test_ill_typed_halving(tmp_path, value):
    start, end = TEXT.index("[\n    {"), TEXT.index("]\n\n[ks.head]") + 1
    assert "[ks].halving must be a" in refusal(tmp_path, TEXT[start:end], value)


def test_head_must_be_a_table(tmp_path):
    assert "[ks].head must be a table" in refusal(tmp_path, "[ks.head]\nprojection = 16", "")


def test_task_must_be_a_table(tmp_path):
    assert "[asr] must be a table" in refusal(tmp_path, "[ks]\n", "asr = 3\n[ks]\n")


@pytest.mark.parametrize("rates", ["[1e-2, 1e-3]", "[1e-3, 1e-3]", "[1e-3, 1e-2, 1e-2]"])
def test_rates_increase(tmp_path, rates):
    message = refusal(tmp_path, "[1e-3, 1e-2, 1]", rates)
    assert "[ks]" in message
    assert "learning_rates must increase" in message


@pytest.mark.parametrize("rates", ["[]", "[0.0, 1.0]", "[-1.0]"])
def test_rates_are_positive(tmp_path, rates):
    assert "at least one positive rate" in refusal(tmp_path, "[1e-3, 1e-2, 1]", rates)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('sampling = "shuffle"', 'sampling = "shufle"', ["sampling", "Did you mean shuffle"]),
        ('sampling = "shuffle"', 'sampling = "none"', ["sampling", "balanced, shuffle"]),
        ('schedule = "linear"', 'schedule = "cosine"', ["schedule", "constant, linear"]),
        ('schedule = "linear"', "schedule = 1", ["schedule", "'1'"]),
        ('by = "loss"', 'by = "los"', ["halving", "Did you mean loss"]),
    ],
)
def test_words_from_a_list(tmp_path, old, new, words):
    message = refusal(tmp_path, old, new)
    assert all(word in message for word in ["[ks]", *words])


@pytest.mark.parametrize(
    "name", ["updates", "batch_utterances", "accumulate", "crops", "evaluate_every"]
)
def test_counts_are_positive(tmp_path, name):
    line = next(line for line in TEXT.splitlines() if line.startswith(f"{name} ="))
    assert f"{name} must be at least 1, got 0" in refusal(tmp_path, line, f"{name} = 0")


def test_halving_falls_on_a_look(tmp_path):
    message = refusal(tmp_path, "update = 50", "update = 55")
    assert "halving at update 55: not a multiple of evaluate_every (10)" in message


def test_halving_keeps_something(tmp_path):
    assert "keep at least 1" in refusal(tmp_path, "keep = 1", "keep = 0")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[1e-3, 1e-2, 1]", "[1e-3, inf]", "[ks]: learning_rates must be finite"),
        ("[1e-3, 1e-2, 1]", "[nan]", "learning_rates must be finite"),
        ("[1e-3, 1e-2, 1]", f"[1{'0' * 400}]", "learning_rates must be finite"),
        ("clip_norm = 1", "clip_norm = 0", "clip_norm must be positive and finite, got 0"),
        ("clip_norm = 1", "clip_norm = -1.0", "clip_norm must be positive and finite, got -1"),
        ("clip_norm = 1", "clip_norm = inf", "clip_norm must be positive and finite, got inf"),
        ("clip_norm = 1", "clip_norm = nan", "clip_norm must be positive and finite, got nan"),
        ("warmup = 20", "warmup = -1", "warmup must be from 0 to updates (100), got -1"),
        ("warmup = 20", "warmup = 101", "warmup must be from 0 to updates (100), got 101"),
        ("update = 50", "update = 110", "halving at update 110: must be from 1 to updates (100)"),
        ("update = 20", "update = 0", "halving at update 0: must be from 1 to updates (100)"),
        ("update = 20", "update = -10", "halving at update -10: must be from 1 to updates"),
        ("update = 50", "update = 20", "halving at update 20: must come after the one before"),
        ("update = 50", "update = 10", "must come after the one before, at 20"),
        ("time_warp = 5", "time_warp = -5", "[ks].spec_augment: time_warp must not be negative"),
        ("time_masks = 2", "time_masks = -2", "time_masks must not be negative, got -2"),
        ("feature_width = 50", "feature_width = -1", "feature_width must not be negative"),
        ("time_share = 1.0", "time_share = 1.1", "time_share must be from 0 to 1, got 1.1"),
        ("feature_share = 0.5", "feature_share = nan", "feature_share must be from 0 to 1"),
        ("feature_share = 0.5", "feature_share = -0.5", "feature_share must be from 0 to 1"),
        ("patience = 4", "patience = -1", "[ks]: patience must not be negative, got -1"),
        ("first_seed = 7", "first_seed = -7", "first_seed must not be negative, got -7"),
        ("crop_s = 4.0", "crop_s = -1", "crop_s must be finite and not negative, got -1.0"),
        ("crop_s = 4.0", "crop_s = inf", "crop_s must be finite and not negative, got inf"),
        ("crop_s = 4.0", "crop_s = 0", "crops = 3 needs crop_s above 0"),
        ("gain_db = -3.0", "gain_db = nan", "gain_db must be finite, got nan"),
        ("beam = 5", "beam = 0", "[ks].lm: beam must be at least 1, got 0"),
        ("beam_threshold = 25.0", "beam_threshold = 0", "beam_threshold must be positive, got 0.0"),
        ("lm_weight = 2.0", "lm_weight = inf", "lm_weight must be finite, got inf"),
        ('"score-loss"', '"score"', 'halving by score needs select_by = "score-loss"'),
    ],
)
def test_values_out_of_range(tmp_path, old, new, expected):
    assert expected in refusal(tmp_path, old, new)


@pytest.mark.parametrize("warmup", [0, 100])
def test_warmup_up_to_all_updates(tmp_path, warmup):
    load_protocol(edited(tmp_path, "warmup = 20", f"warmup = {warmup}"), PROTOCOLS)


@pytest.mark.parametrize("value", ["-1", "inf", "nan", "true", '"16"', "[16]", "1" + "0" * 400])
def test_head_values_are_numbers(tmp_path, value):
    message = refusal(tmp_path, "projection = 16", f"projection = {value}")
    assert "[ks]: head.projection must be a number that is finite and not negative" in message


@pytest.mark.parametrize("value", ["0", "12.5", "16.0"])
def test_head_sizes_are_whole_and_positive(tmp_path, value):
    message = refusal(tmp_path, "projection = 16", f"projection = {value}")
    assert f"[ks]: head.projection must be a whole number of at least 1, got {value}" in message


def test_head_dropout_leaves_something(tmp_path):
    message = refusal(tmp_path, "projection = 16", "dropout = 1.0")
    assert "[ks]: head.dropout must be below 1, got 1.0" in message
    path = edited(tmp_path, "projection = 16", "dropout = 0.9")
    assert load_protocol(path, PROTOCOLS).training("ks").head == {"dropout": 0.9}


def test_masks_need_features_as_they_are(tmp_path):
    message = refusal(tmp_path, "standardise = false", "standardise = true")
    assert "[ks]: spec_augment needs standardise = false: masks set features to 0" in message
    path = edited(
        tmp_path, text=TEXT.partition("[ks.spec_augment]")[0].replace("= false", "= true")
    )
    assert load_protocol(path, PROTOCOLS).training("ks").standardise


def test_linear_schedule(tmp_path):
    training = load_protocol(edited(tmp_path), PROTOCOLS).training("ks")
    assert training.factor(0) == pytest.approx(1 / 20)
    assert training.factor(9) == pytest.approx(10 / 20)
    assert training.factor(19) == 1
    assert training.factor(20) == 1
    assert training.factor(60) == pytest.approx(40 / 80)
    assert training.factor(99) == pytest.approx(1 / 80)


def test_constant_schedule(tmp_path):
    text = TEXT.replace('schedule = "linear"', 'schedule = "constant"')
    training = load_protocol(edited(tmp_path, text=text), PROTOCOLS).training("ks")
    assert [training.factor(update) for update in (0, 9, 19, 20, 99)] == pytest.approx(
        [0.05, 0.5, 1, 1, 1]
    )
    text = text.replace("warmup = 20", "warmup = 0")
    training = load_protocol(edited(tmp_path, text=text), PROTOCOLS).training("ks")
    assert {training.factor(update) for update in range(100)} == {1.0}


def test_record_holds_every_value(tmp_path):
    protocol = load_protocol(edited(tmp_path), PROTOCOLS)
    record = protocol.record(protocol.training("ks"))
    expected = tomllib.loads(TEXT)["ks"]
    found = json.loads(json.dumps(record))
    assert {key: found[key] for key in expected} == expected
    assert (found["name"], found["version"]) == ("toy", 3)


def leaves(table, path=()):
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


CHANGES = {
    "shuffle": "balanced",
    "balanced": "all",
    "linear": "constant",
    "loss": "score",
    "score": "loss",
    "bfloat16": "float32",
    "score-loss": "score",
}


@pytest.mark.parametrize("path", leaves(tomllib.loads(TEXT)["ks"]), ids=str)
def test_hash_changes_with_every_value(tmp_path, path):
    def changed(table):
        for key in path[:-1]:
            table = table[key]
        old = table[path[-1]]
        if isinstance(old, bool):
            table[path[-1]] = not old
        elif isinstance(old, str):
            table[path[-1]] = CHANGES[old]
        elif path[0] == "learning_rates":
            table[path[-1]] = old * 1.5
        elif isinstance(old, float):
            table[path[-1]] = old / 2
        else:
            table[path[-1]] = old * 2 if path[-1] != "evaluate_every" else 5

    values = tomllib.loads(TEXT)
    if path == ("standardise",):
        del values["ks"]["spec_augment"]
    if path == ("select_by",):
        values["ks"]["halving"] = []
    before = copy.deepcopy(values)
    changed(values["ks"])
    assert values != before
    digests = set()
    for table in (before, values, before):
        path_ = tmp_path / "toy.toml"
        path_.write_text(as_toml(table))
        protocol = load_protocol(str(path_), PROTOCOLS)
        digests.add(protocol.record(protocol.training("ks"))["sha256"])
    assert len(digests) == 2


def as_toml(values):
    """Enough of TOML for these tables."""

    def word(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {word(part)}" for key, part in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(word, value)) + "]"
        return json.dumps(value)

    return "\n".join(f"{key} = {word(value)}" for key, value in values.items())
