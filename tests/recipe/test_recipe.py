"""Tests of recipe.py and of the bundled recipes: strict reading, and messages that name the key and the nearest one."""

import copy
import datetime

import pytest
import yaml
from pydantic import ValidationError

from deploy_kit import engines, recipe
from deploy_kit.base import bundled
from deploy_kit.base.errors import InputError, RecipeError, UnknownNameError
from deploy_kit.graph import passes
from deploy_kit.measure import race
from deploy_kit.quantization import schemes
from deploy_kit.recipe import targets
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.results import Limits

GRAY = {"height": 28, "width": 28, "color": "gray", "mean": [0.286], "std": [0.353]}
SMALL = {
    "name": "small",
    "source": {"checkpoint": "a.pth"},
    "export": {"tolerance": 1e-5},
    "simplify": {"passes": ["fold_constants"]},
    "quantize": {"variants": [{"name": "int8", "scheme": "int8_ort", "options": {"symmetric": True}}]},
    "build": {"engines": [{"engine": "openvino", "variants": ["fp32", "int8"]}]},
    "check": {"images": "synthetic", "limits": {"int8": {"min_sqnr_db": 15}}},
    "bench": {},
}
TABLES = ("source", "export", "simplify", "quantize", "build", "check", "bench")


def changed(path, value):
    """Give the small recipe with the value at `path` replaced."""
    data = copy.deepcopy(SMALL)
    table = data
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = value
    return data


def without(path):
    """Give the small recipe without the key at `path`."""
    data = copy.deepcopy(SMALL)
    table = data
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]
    return data


def refused(data):
    with pytest.raises(RecipeError) as caught:
        recipe.parse_recipe(data)
    return caught.value


PIXELS = {"source": {"checkpoint": "a.pth", "preprocess": GRAY | {"height": 65_537}}}
RESIZED = {"source": {"checkpoint": "a.pth", "preprocess": GRAY | {"resize": 449}}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (PIXELS, "recipe.source.preprocess.height: input should be less than or equal to 65536, found 65537"),
        (RESIZED, "preprocess.resize: expected a side that fits the input, found 449 px"),
        ({"bench": {"streams": 1025}}, "recipe.bench.streams: input should be less than or equal to 1024, found 1025"),
        ({"export": {"tolerance": 1e-5, "batch": 10**9}}, "recipe.export.batch: input should be less than or equal to"),
    ],
)
def test_sizes_that_would_take_a_machines_memory_are_refused(table, said):
    assert str(refused(copy.deepcopy(SMALL) | table)).startswith(said)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "ncnn", "executorch"])
def test_threads_that_no_machine_has_are_refused(name):
    options = engines.CATALOGUE.get(name).options

    assert options(threads=1024).threads == 1024
    for number in (-1, 1025):
        with pytest.raises(RecipeError, match=f"engine '{name}'.threads: expected 0 to 1,024, found {number:,}"):
            options(threads=number)


@pytest.mark.parametrize("number", [2**31, 10**400, -(2**63), 1e308])
@pytest.mark.parametrize(
    "path",
    [("export", "batch"), ("bench", "duration_s"), ("check", "limits", "int8", "min_sqnr_db"),
     ("quantize", "variants", 0, "options", "symmetric")],
)  # fmt: skip
def test_a_number_that_native_code_does_not_take_is_refused(path, number):
    where = "recipe" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)

    assert str(refused(changed(path, number))).startswith(f"{where}: expected a number of at most 2,147,483,647, found")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "path", [("bench", "duration_s"), ("quantize", "variants", 0, "options", "symmetric")], ids=lambda path: path[0]
)
def test_a_number_that_is_none_is_refused_also_in_options(path, number):
    assert f"{path[-1]}: input should be a finite number, found {number}" in str(refused(changed(path, number)))


# Bundled recipes


RECIPES = tuple(name for name in bundled.bundled_names("recipes") if name != "family")  # which is a sweep


@pytest.fixture(params=RECIPES)
def shipped(request):
    return recipe.load_recipe(request.param)


def test_each_bundled_recipe_is_called_like_its_file():
    assert {name: recipe.load_recipe(name).name for name in RECIPES} == {name: name for name in RECIPES}


def test_each_bundled_recipe_simplifies_with_the_default_passes(shipped):
    assert passes.resolve_names(shipped.simplify.passes) == passes.default_passes()


def test_each_bundled_recipe_names_schemes_that_exist(shipped):
    assert {variant.scheme for variant in shipped.quantize.variants} <= set(schemes.CATALOGUE.names())


def test_each_bundled_recipe_gives_an_engine_the_rewrites_that_it_likes(shipped):
    variants = {variant.name: variant for variant in shipped.quantize.variants}
    halves = [
        (entry.engine, variants[name])
        for entry in shipped.build.engines
        for name in entry.variants
        if name in variants and variants[name].scheme in ("fp32", "fp16", "bf16")
    ]

    for engine, variant in halves:
        assert tuple(variant.options.get("passes", ())) == targets.find_target(engine).passes(variant.scheme)


def test_each_bundled_recipe_names_engines_that_exist(shipped):
    assert {entry.engine for entry in shipped.build.engines} <= set(engines.CATALOGUE.names())


def test_each_bundled_recipe_judges_full_precision(shipped):
    assert shipped.check.limits["fp32"].record() != Limits()


def test_each_bundled_recipe_checks_on_other_images_than_it_calibrates_on(shipped):
    assert shipped.check.images != shipped.quantize.calibration


def test_each_bundled_recipe_has_a_baseline_that_it_builds_or_none(shipped):
    built = {f"{name} · {entry.engine}" for entry in shipped.build.engines for name in entry.variants}

    assert shipped.bench.baseline is None or shipped.bench.baseline in built


def test_each_bundled_recipe_comes_back_from_yaml_as_it_was(shipped):
    assert recipe.parse_recipe(yaml.safe_load(recipe.dump_recipe(shipped))) == shipped


def test_the_demo_needs_no_file_that_does_not_ship():
    demo = recipe.load_recipe("demo")

    assert all(
        bundled.resolve_bundled(kind, source).is_file()
        for kind, source in [
            ("models", demo.source.checkpoint),
            ("calibration", demo.quantize.calibration),
            ("calibration", demo.check.images),
        ]
    )


def test_what_a_recipe_leaves_out_is_not_written():
    assert "null" not in recipe.dump_recipe(recipe.parse_recipe(SMALL))


# Loading


def test_a_recipe_is_found_by_the_bundled_prefix_too():
    assert recipe.load_recipe("bundled:demo") == recipe.load_recipe("demo")


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_recipe_is_read_from_a_file(tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    path.write_text(yaml.safe_dump(SMALL))

    assert recipe.load_recipe(str(path)).name == "small"


def test_a_bundled_recipe_that_does_not_exist_names_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        recipe.load_recipe("dmo")

    assert (str(caught.value), caught.value.hint) == (
        "no file 'dmo' is bundled under 'recipes'", "did you mean 'demo'?",
    )  # fmt: skip


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        recipe.load_recipe(str(tmp_path / "dmo.yaml"))

    error = caught.value
    assert (str(error), error.hint, error.exit_code) == (
        f"{tmp_path / 'dmo.yaml'}: no such recipe", "did you mean 'demo'?", 2,
    )  # fmt: skip


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "own.yaml").mkdir()

    with pytest.raises(InputError, match=r"own\.yaml: cannot be read: .*Is a directory"):
        recipe.load_recipe(str(tmp_path / "own.yaml"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\xfa")

    with pytest.raises(InputError, match=r"own\.yaml: expected text in UTF-8, found the byte 0xff"):
        recipe.load_recipe(str(tmp_path / "own.yaml"))


def test_a_file_that_is_no_yaml_is_refused_with_the_line(tmp_path):
    (tmp_path / "own.yaml").write_text("name: small\nbench: [1\n")

    with pytest.raises(RecipeError) as caught:
        recipe.load_recipe(str(tmp_path / "own.yaml"))

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'own.yaml'}: not YAML: ") and "line 2" in message


def test_a_file_that_is_no_yaml_hints_to_mend_the_line(tmp_path):
    (tmp_path / "own.yaml").write_text("name: small\nbench: [1\n")

    with pytest.raises(RecipeError) as caught:
        recipe.load_recipe(str(tmp_path / "own.yaml"))

    assert caught.value.hint == "correct the line it names"


def test_yaml_that_builds_objects_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("name: !!python/object/apply:os.getcwd []\n")

    with pytest.raises(RecipeError, match="not YAML: could not determine a constructor"):
        recipe.load_recipe(str(tmp_path / "own.yaml"))


def test_a_date_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("name: 2025-13-45\n")

    with pytest.raises(RecipeError, match=r"own\.yaml: not YAML: a timestamp, expected"):
        recipe.load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(("text", "found"), [("", "None"), ("- a\n", "['a']"), ("small\n", "'small'")])
def test_a_file_without_tables_is_refused(tmp_path, text, found):
    (tmp_path / "own.yaml").write_text(text)

    with pytest.raises(RecipeError) as caught:
        recipe.load_recipe(str(tmp_path / "own.yaml"))

    assert str(caught.value) == f"recipe: expected a table, found {found}"


# Values


def test_what_only_costs_time_has_a_default():
    bench = recipe.parse_recipe(SMALL).bench

    assert race.plan_race(bench) == race.RacePlan(rounds=12, runs=100, seconds=0.0)
    assert (bench.scenario, bench.warmup_s, bench.span) == ("closed-loop", 3.0, "compute")


def test_a_limit_left_out_judges_nothing():
    limits = recipe.parse_recipe(SMALL).check.limits["int8"].record()

    assert limits == Limits(min_sqnr_db=15)


def test_preprocessing_becomes_the_record_that_travels():
    table = recipe.parse_recipe(changed(["source", "preprocess"], GRAY)).source.preprocess

    assert table.record() == Preprocess(height=28, width=28, color="gray", mean=(0.286,), std=(0.353,))


def test_options_reach_their_scheme_as_they_are():
    assert recipe.parse_recipe(SMALL).quantize.variants[0].options == {"symmetric": True}


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        recipe.parse_recipe(SMALL).bench.rounds = 3


def test_the_full_precision_graph_needs_no_variant():
    data = changed(["quantize"], {}) | {"build": {"engines": [{"engine": "openvino", "variants": ["fp32"]}]}}

    assert recipe.parse_recipe(data).build.engines[0].variants == ("fp32",)


# Unknown and missing keys


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        (["bencch"], "recipe: unknown key 'bencch'", "did you mean 'bench'?"),
        (["export", "tolerances"], "recipe.export: unknown key 'tolerances'", "did you mean 'tolerance'?"),
        (["bench", "round"], "recipe.bench: unknown key 'round'", "did you mean 'rounds'?"),
        (
            ["quantize", "variants", 0, "option"],
            "recipe.quantize.variants[0]: unknown key 'option'",
            "did you mean 'options'?",
        ),
        (
            ["build", "engines", 0, "variant"],
            "recipe.build.engines[0]: unknown key 'variant'",
            "did you mean 'variants'?",
        ),
        (
            ["check", "limits", "int8", "min_sqnr"],
            "recipe.check.limits.int8: unknown key 'min_sqnr'",
            "did you mean 'min_sqnr_db'?",
        ),
    ],
)
def test_unknown_key_names_the_nearest(path, message, hint):
    error = refused(changed(path, 1))

    assert (str(error), error.hint, error.exit_code) == (message, hint, 2)


def test_unknown_key_of_preprocessing_names_the_nearest():
    error = refused(changed(["source", "preprocess"], GRAY | {"heigth": 28}))

    assert (str(error), error.hint) == (
        "recipe.source.preprocess: unknown key 'heigth'", "did you mean 'height'?",
    )  # fmt: skip


def test_unknown_key_lists_those_of_its_table_where_none_is_near():
    error = refused(changed(["simplify", "xyz"], 1))

    assert error.hint == "known: passes"


def test_a_typo_in_a_required_key_names_the_nearest():
    data = changed(["quantize", "variants", 0, "sceme"], "int8_ort")
    del data["quantize"]["variants"][0]["scheme"]

    error = refused(data)

    assert (str(error), error.hint) == (
        "recipe.quantize.variants[0]: unknown key 'sceme'", "did you mean 'scheme'?",
    )  # fmt: skip


def test_unknown_key_with_a_dot_is_named_whole():
    error = refused(changed(["bench.rounds"], 3))

    assert str(error) == "recipe: unknown key 'bench.rounds'"


@pytest.mark.parametrize("table", TABLES)
def test_each_table_is_asked_for(table):
    assert str(refused(without([table]))) == f"recipe: '{table}' is missing"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["name"], "recipe: 'name' is missing"),
        (["source", "checkpoint"], "recipe.source: 'checkpoint' is missing"),
        (["export", "tolerance"], "recipe.export: 'tolerance' is missing"),
        (["simplify", "passes"], "recipe.simplify: 'passes' is missing"),
        (["quantize", "variants", 0, "scheme"], "recipe.quantize.variants[0]: 'scheme' is missing"),
        (["build", "engines", 0, "variants"], "recipe.build.engines[0]: 'variants' is missing"),
        (["check", "images"], "recipe.check: 'images' is missing"),
        (["check", "limits"], "recipe.check: 'limits' is missing"),
    ],
)
def test_a_missing_key_is_named_with_its_table(path, message):
    assert str(refused(without(path))) == message


# Passes


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("default", ("default",)),
        (["default", "relu_after_pool"], ("default", "relu_after_pool")),
        (["fold_constants"], ("fold_constants",)),
    ],
)
def test_passes_are_one_name_or_a_list(written, read):
    assert recipe.parse_recipe(changed(["simplify", "passes"], written)).simplify.passes == read


@pytest.mark.parametrize("written", [3, {"fold_constants": True}, None])
def test_passes_that_are_neither_are_refused(written):
    error = refused(changed(["simplify", "passes"], written))

    assert str(error) == f"recipe.simplify.passes: input should be a valid array, found {written!r}"


# Values that do not fit


@pytest.mark.parametrize(
    ("path", "value", "where", "found"),
    [
        (["name"], 3, "recipe.name", "3"),
        (["simplify", "passes"], ["fold_constants", 3], "recipe.simplify.passes[1]", "3"),
        (["export", "batch"], True, "recipe.export.batch", "True"),
        (["export", "batch"], 1.5, "recipe.export.batch", "1.5"),
        (["export", "dynamic"], "yes", "recipe.export.dynamic", "'yes'"),
        (["export", "tolerance"], "1e-5", "recipe.export.tolerance", "'1e-5'"),
        (["bench"], None, "recipe.bench", "None"),
        (["quantize", "variants", 0], "int8", "recipe.quantize.variants[0]", "'int8'"),
        (["check", "limits", "int8", "max_drop"], "1 %", "recipe.check.limits.int8.max_drop", "'1 %'"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_path_and_itself(path, value, where, found):
    message = str(refused(changed(path, value)))

    assert (message.split(": ")[0], message.rsplit(", ")[-1]) == (where, f"found {found}")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["export", "tolerance"], 0, "recipe.export.tolerance: input should be greater than 0, found 0"),
        (["export", "tolerance"], -1e-5, "recipe.export.tolerance: input should be greater than 0, found -1e-05"),
        (["export", "opset"], 12, "recipe.export.opset: input should be greater than or equal to 13, found 12"),
        (["export", "batch"], 0, "recipe.export.batch: input should be greater than 0, found 0"),
        (["bench", "rounds"], 0, "recipe.bench.rounds: input should be greater than 0, found 0"),
        (["bench", "streams"], 0, "recipe.bench.streams: input should be greater than 0, found 0"),
        (["bench", "duration_s"], 0, "recipe.bench.duration_s: input should be greater than 0, found 0"),
        (["bench", "latency_budget_ms"], 0, "recipe.bench.latency_budget_ms: input should be greater than 0, found 0"),
        (["bench", "runs"], 0, "recipe.bench.runs: input should be greater than 0, found 0"),
        (["bench", "warmup_s"], 0, "recipe.bench.warmup_s: input should be greater than 0, found 0"),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range(path, value, message):
    assert str(refused(changed(path, value))) == message


def test_a_word_that_is_no_choice_lists_the_choices():
    error = refused(changed(["export", "exporter"], "dinamo"))

    assert str(error) == "recipe.export.exporter: input should be 'dynamo' or 'torchscript', found 'dinamo'"


def test_a_word_that_is_no_choice_names_the_nearest():
    error = refused(changed(["export", "exporter"], "dinamo"))

    assert error.hint == "did you mean 'dynamo'?"


def test_limits_of_a_precision_that_does_not_exist_name_it():
    error = refused(changed(["check", "limits", "fp23"], {"min_agreement": 1}))

    assert str(error) == "recipe.check.limits: no precision is called 'fp23'"


def test_limits_of_a_precision_that_does_not_exist_name_the_nearest():
    error = refused(changed(["check", "limits", "fp23"], {"min_agreement": 1}))

    assert error.hint == "did you mean 'fp32'?"


@pytest.mark.parametrize("limit", ["min_sqnr_db", "min_cosine", "max_error", "min_agreement", "max_drop"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_limit_that_could_never_judge_is_refused(limit, value):
    error = refused(changed(["check", "limits", "int8", limit], value))

    assert str(error) == f"recipe.check.limits.int8.{limit}: input should be a finite number, found {value}"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tolerance_that_could_never_judge_is_refused(value):
    error = refused(changed(["export", "tolerance"], value))

    assert str(error).startswith("recipe.export.tolerance: ")


def test_a_date_is_no_plain_value():
    error = refused(changed(["name"], datetime.date(2025, 1, 1)))

    assert str(error) == "recipe: a value is not plain YAML: Object of type date is not JSON serializable"


def test_a_table_that_holds_itself_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("name: &it [*it]\n")

    with pytest.raises(RecipeError, match=r"an anchor that contains itself$"):
        recipe.load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.1, 0.2, 0.3]},
        {"std": [0.1, 0.2, 0.3]},
        {"color": "rgb"},
        {"std": [0.0]},
        {"resize": 0},
    ],
    ids=["three means for gray", "three stds for gray", "one mean for rgb", "std of zero", "resize to nothing"],
)
def test_preprocessing_that_cannot_be_carried_out_is_refused(change):
    refused(changed(["source", "preprocess"], GRAY | change))


@pytest.mark.parametrize(
    ("mean", "std", "text", "divided"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
         "mean 123.675, 116.28, 103.53 and std 58.395, 57.12, 57.375",
         "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        ((127.5,), (127.5,), "mean 127.5 and std 127.5", "--mean 0.5 --std 0.5"),
        ((102.0,), (1.0,), "mean 102 and std 1", "--mean 0.4 --std 0.00392157"),
    ],
)  # fmt: skip
def test_mean_and_std_for_pixels_up_to_255_are_refused_with_those_for_0_to_1(mean, std, text, divided):
    stated = GRAY | {"color": "rgb" if len(mean) == 3 else "gray"}

    error = refused(changed(["source", "preprocess"], stated | {"mean": mean, "std": std}))

    assert str(error) == f"preprocess: {text} are for pixels up to 255, and pixels are divided by 255 first"
    assert error.hint == f"divide both by 255: {divided}"
    means, stds = ([float(part) for part in part.split(",")] for part in divided.split()[1::2])
    assert recipe.parse_recipe(changed(["source", "preprocess"], stated | {"mean": means, "std": stds}))


# Names that refer to each other


def test_a_variant_that_no_one_makes_is_told_with_where_it_is_built():
    error = refused(changed(["build", "engines", 0, "variants"], ["fp32", "in8"]))

    assert str(error) == "recipe.build.engines[0].variants: no variant is called 'in8'"


def test_a_variant_that_no_one_makes_names_the_nearest():
    error = refused(changed(["build", "engines", 0, "variants"], ["fp32", "in8"]))

    assert error.hint == "did you mean 'int8'?"


def test_two_variants_of_one_name_are_refused():
    variant = {"name": "int8", "scheme": "int8_ort"}

    error = refused(changed(["quantize", "variants"], [variant, variant]))

    assert str(error) == "recipe.quantize.variants: the name 'int8' is taken twice"


def test_no_variant_may_take_the_name_of_the_graph_as_it_is():
    variants = [{"name": name, "scheme": "int8_ort"} for name in ("fp32", "int8")]

    error = refused(changed(["quantize", "variants"], variants))

    assert str(error) == "recipe.quantize.variants: the name 'fp32' is taken twice"
