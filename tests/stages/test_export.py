"""Tests of `export`: the ONNX file is what the checkpoint is, and what is not is refused and not kept."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from PIL import Image
from stage_inputs import images_of
from stand_ins import PretendLink
from tiny_densenet import TINY_PREPROCESS, TINY_SPEC, save_images, save_tiny, tiny_model

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import CheckpointError, ExportError, InputError, RequestError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint.network import to_onnx
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.images import ImageSet, open_set
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import ExportTable, PreprocessTable, SourceTable
from deploy_kit.records.artifacts import BareInput, Exported, TensorSpec
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, StemConv
from deploy_kit.stages import export, reference
from deploy_kit.store import Store

EXPORTS = {
    "dynamo": {},
    "dynamo, open batch": {"dynamic": True},
    "torchscript": {"exporter": "torchscript"},
    "torchscript, open batch": {"exporter": "torchscript", "dynamic": True},
}
STATED = PreprocessTable(height=16, width=16, color="gray", mean=(0.5,), std=(0.25,))
# The quicker exporter, where it makes no difference.
QUICK = {"tolerance": 1e-5, "exporter": "torchscript"}
RELU = "g (float[N,1,16,16] x) => (float[N,1,16,16] y) { y = Relu(x) }"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> PretendLink:
    """Worker operations in this process: quicker than a process for each; `tiny_graphs` uses the real link."""
    return PretendLink(tmp_path_factory.mktemp("link"), WorkerProgram().operations)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny.safetensors", tiny_model())


@pytest.fixture
def check_images(tmp_path: Path) -> str:
    return str(save_images(tmp_path / "check.npz", 10))


@pytest.fixture
def run(store: Store, connection: Connection, check_images: str) -> Callable[..., tuple[Exported, bool]]:
    def run(path: Path, preprocess: PreprocessTable | None = None, **part: Any) -> tuple[Exported, bool]:
        source = SourceTable(checkpoint=str(path), preprocess=preprocess)
        return export.run(
            source,
            ExportTable(**(QUICK | part)),
            Context(store=store, connection=connection),
            images=images_of(check_images),
        )

    return run


def by_torch(image_set: ImageSet) -> np.ndarray:
    batch = np.concatenate(list(image_set.batches(TINY_PREPROCESS, image_set.n)))
    return tiny_model()(torch.from_numpy(batch)).numpy()


def written(folder: Path, model: ir.Model) -> Path:
    onnx_file.save(model, folder / "given.onnx")
    return folder / "given.onnx"


def kept(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_file_computes_what_torch_computes(options: dict[str, Any]) -> None:
    x = tiny_graphs.images(1)
    wanted = tiny_model().double()(torch.from_numpy(x).double()).numpy()

    (found,) = tiny_graphs.evaluate(tiny_graphs.exported_model(**options), x)

    assert metrics.relative_difference(wanted, found) < 1e-6


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_input_and_output_have_their_names_and_batch(options: dict[str, Any]) -> None:
    exported, data = tiny_graphs.exported(**options)
    batch = "N" if options.get("dynamic") else 1

    proto = onnx.load_from_string(data)

    assert exported.onnx.inputs == (TensorSpec(name="input", dtype="float", shape=(batch, 1, 16, 16)),)
    assert exported.onnx.outputs == (TensorSpec(name="logits", dtype="float", shape=(batch, 4)),)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["input", "logits"]


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_graph_is_in_eval_mode(options: dict[str, Any]) -> None:
    model = tiny_graphs.exported_model(**options)

    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]

    assert "Dropout" not in tiny_graphs.operators(model)
    assert norms and not any(node.attributes.get_int("training_mode", 0) for node in norms)


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_exported_file_is_folded(options: dict[str, Any]) -> None:
    """Converters of other programs take no bias that is computed, nor the chain that computes its shape."""
    model = tiny_graphs.exported_model(**options)

    convolutions = [node for node in model.graph if node.op_type in ("Conv", "Gemm", "BatchNormalization")]

    chains = {"Expand", "CastLike", "Cast", "Constant", "Identity"} | (set() if "dynamic" in options else {"Shape"})
    assert chains.isdisjoint(tiny_graphs.operators(model))
    assert all(value.const_value is not None for node in convolutions for value in node.inputs[1:] if value is not None)


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_no_path_of_this_machine_is_in_the_file(options: dict[str, Any]) -> None:
    data = tiny_graphs.exported(**options)[1]

    found = [word for word in ("site-packages", ".py", "/tmp", str(Path.cwd())) if word.encode() in data]

    assert found == []


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS)
def test_preprocess_and_architecture_are_embedded(options: dict[str, Any]) -> None:
    model = tiny_graphs.exported_model(**options)

    assert onnx_file.preprocess(model) == TINY_PREPROCESS
    assert json.loads(model.metadata_props["deploykit.densenet"])["blocks"][1]["growth"] == 4
    assert model.metadata_props["deploykit.exporter"] == options.get("exporter", "dynamo")


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("n", [1, 5])
def test_open_batch_gives_each_image_its_own_logits(exporter: str, n: int) -> None:
    model = tiny_graphs.exported_model(exporter, dynamic=True)
    x = tiny_graphs.images(n)
    wanted = tiny_model().double()(torch.from_numpy(x).double()).numpy()

    (found,) = tiny_graphs.evaluate(model, x)

    assert metrics.relative_difference(wanted, found) < 1e-6


def test_open_batch_is_verified_at_one_and_at_more() -> None:
    exported, _ = tiny_graphs.exported(dynamic=True)

    assert exported.verified_on.endswith("batch 1 and 3")


def test_static_batch_is_the_one_asked_for(run: Callable[..., tuple[Exported, bool]], checkpoint: Path) -> None:
    exported, _ = run(checkpoint, batch=3)

    assert exported.onnx.inputs[0].shape == (3, 1, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize(("exporter", "opset"), [("dynamo", 20), ("torchscript", 13), ("torchscript", 17)])
def test_operator_set_is_the_one_asked_for(
    exporter: str, opset: int, run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store
) -> None:
    exported, _ = run(checkpoint, exporter=exporter, opset=opset)

    proto = onnx.load(store.path(exported.onnx))
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset


def test_default_operator_set_is_18() -> None:
    assert onnx_file.opset(tiny_graphs.exported_model()) == ExportTable(tolerance=1e-5).opset == 18


@pytest.mark.slow
def test_operator_set_that_the_exporter_does_not_write_is_refused(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store
) -> None:
    with pytest.raises(ExportError, match="asked for opset 13, the file has 18") as caught:
        run(checkpoint, exporter="dynamo", opset=13)

    assert caught.value.hint == "torch's dynamo exporter cannot write it: use --exporter torchscript, or --opset 18"
    assert kept(store) == []
    run(checkpoint, exporter="torchscript", opset=13)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_operator_set_that_onnx_does_not_have_is_refused_and_the_cure_holds(
    exporter: str, run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    with pytest.raises(InputError, match=r"--opset 99: ONNX .* has operator sets up to") as caught:
        run(checkpoint, exporter=exporter, opset=99)

    assert caught.value.hint == "--opset 18"
    run(checkpoint, exporter=exporter, opset=18)


@pytest.mark.slow
def test_torch_leaves_no_folder_of_its_cache(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "tmp").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    command = [sys.executable, "-m", "deploy_kit", "export", checkpoint, "--store", tmp_path / "store"]
    subprocess.run(command, env=environment | {"TMPDIR": str(tmp_path / "tmp")}, check=True, capture_output=True)

    assert list((tmp_path / "tmp").iterdir()) == []


def test_failure_of_the_exporter_is_an_export_error(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    with pytest.raises(ExportError, match="torch's torchscript exporter failed: Unsupported onnx_opset_version: 24"):
        run(checkpoint, exporter="torchscript", opset=24)


def test_failure_of_one_exporter_hints_at_the_other(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        run(checkpoint, exporter="torchscript", opset=24)

    assert "dynamo" in caught.value.hint and "torchscript" not in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_exporters_print_nothing(
    exporter: str, run: Callable[..., tuple[Exported, bool]], checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, exporter=exporter)

    assert capfd.readouterr() == ("", "")


def test_failing_exporter_prints_nothing_either(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError):
        run(checkpoint, exporter="torchscript", opset=24)

    assert capfd.readouterr() == ("", "")


def test_result_is_one_file_and_its_passport(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store
) -> None:
    exported, _ = run(checkpoint)

    folder = store.path(exported.onnx).parent
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "record.json"]


def test_passport_says_what_the_file_is(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store
) -> None:
    exported, _ = run(checkpoint)

    artifact, file = exported.onnx, store.root / exported.onnx.path
    assert (artifact.kind, artifact.stage, artifact.precision) == ("onnx", "export", "fp32")
    assert (artifact.sha256, artifact.size_bytes) == (sha256_of(file), file.stat().st_size)
    assert (artifact.parent, artifact.preprocess) == (sha256_of(checkpoint), TINY_PREPROCESS)
    assert {"exporter": "torchscript", "opset": "18", "torch": torch.__version__}.items() <= dict(
        artifact.made_by.rows
    ).items()


def test_facts_of_the_checkpoint_are_kept(run: Callable[..., tuple[Exported, bool]], checkpoint: Path) -> None:
    exported, _ = run(checkpoint)

    facts = exported.checkpoint
    assert (facts.name, facts.container, facts.sha256) == (str(checkpoint), "safetensors", sha256_of(checkpoint))
    assert facts.parameters == sum(tensor.numel() for tensor in tiny_model().parameters())
    assert facts.spec is not None and facts.spec.depth == TINY_SPEC.depth == 11


def test_difference_is_measured_on_the_check_images(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    exported, _ = run(checkpoint)

    assert 0 < exported.difference < 1e-6
    assert exported.verified_on.startswith("10 images (") and exported.verified_on.endswith("check.npz), batch 1")


def test_tolerance_that_is_not_kept_is_an_export_error(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    message = r"differs from the checkpoint by \d.*e-0[789] of the largest logit, at most 1e-12 asked for"
    with pytest.raises(ExportError, match=message) as caught:
        run(checkpoint, tolerance=1e-12)

    assert caught.value.hint == "try the other exporter: --exporter dynamo; the file was not kept"


def test_failed_export_leaves_nothing_in_the_store(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store
) -> None:
    with pytest.raises(ExportError):
        run(checkpoint, tolerance=1e-12)

    assert list(store.root.rglob("*")) == []


def test_verification_notices_a_bias_that_is_off_by_a_thousandth(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = to_onnx.write_onnx

    def careless(network: Any, preprocess: Any, table: Any, file: Path, **options: Any) -> ir.Model:
        honest(network, preprocess, table, file, **options)
        model = onnx_file.load(file)
        bias = model.graph.initializers["classifier.bias"]
        array = bias.const_value.numpy() * np.array([1.001, 1, 1, 1], np.float32)
        bias.const_value = ir.tensor(array, name="classifier.bias")
        onnx_file.save(model, file)
        return model

    monkeypatch.setattr(to_onnx, "write_onnx", careless)

    with pytest.raises(ExportError, match="differs from the checkpoint"):
        run(checkpoint)


def test_graph_that_still_trains_is_refused(run: Callable[..., tuple[Exported, bool]], checkpoint: Path) -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2] a = {1, 1}, float[2] b = {0, 0}>
        { y, m, v = BatchNormalization<training_mode = 1>(x, a, b, b, a) }"""
    model = tiny_graphs.parse(text)

    with pytest.raises(ExportError, match=r"\(BatchNormalization\) is in training mode"):
        to_onnx.verify_graph(model, ExportTable(tolerance=1e-5, opset=18))


def test_second_run_takes_the_result_from_the_store(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, had = run(checkpoint)
    monkeypatch.setattr(to_onnx, "write_onnx", None)

    second, has = run(checkpoint)

    assert (had, has) == (False, True)
    assert second == first


@pytest.mark.parametrize("change", [{"opset": 17}, {"batch": 2}, {"tolerance": 1e-4}])
def test_other_options_are_another_result(
    change: dict[str, Any], run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    run(checkpoint)

    _, had = run(checkpoint, **change)

    assert not had


def test_other_weights_are_another_result(run: Callable[..., tuple[Exported, bool]], checkpoint: Path) -> None:
    run(checkpoint)
    save_tiny(checkpoint, tiny_model(seed=1))

    _, had = run(checkpoint)

    assert not had


def test_same_checkpoint_gives_the_same_bytes(
    run: Callable[..., tuple[Exported, bool]],
    checkpoint: Path,
    check_images: str,
    tmp_path: Path,
    connection: Connection,
) -> None:
    first, _ = run(checkpoint)
    source, elsewhere = SourceTable(checkpoint=str(checkpoint)), Store(tmp_path / "elsewhere")

    second, _ = export.run(
        source, ExportTable(**QUICK), Context(store=elsewhere, connection=connection), images=images_of(check_images)
    )

    assert second.onnx.sha256 == first.onnx.sha256


def test_missing_checkpoint_is_named(run: Callable[..., tuple[Exported, bool]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        run(tmp_path / "absent.pth")


def test_unknown_size_of_the_input_is_refused_with_how_to_name_it(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store
) -> None:
    path = save_tiny(tmp_path / "bare.safetensors", tiny_model(), preprocess=None)

    with pytest.raises(InputError, match=r"bare\.safetensors: the file does not say how large its input is") as caught:
        run(path)

    assert "--input 64x64" in caught.value.hint and "source.preprocess" in caught.value.hint
    assert kept(store) == []


@pytest.fixture
def bare(store: Store, connection: Connection, tmp_path: Path) -> Callable[..., Exported]:
    """Export a file that says nothing of its preprocessing, on noise."""

    def bare(spec: DenseNetSpec = TINY_SPEC, **source: Any) -> Exported:
        path = save_tiny(tmp_path / "bare.safetensors", tiny_model(spec), preprocess=None)
        named = SourceTable(checkpoint=str(path), **source)
        return export.run(
            named, ExportTable(**QUICK), Context(store=store, connection=connection), images=images_of("synthetic")
        )[0]

    return bare


def test_size_alone_exports_and_says_that_the_preprocessing_is_not_known(bare: Callable[..., Exported]) -> None:
    exported = bare(input=(20, 24))

    assert exported.onnx.preprocess == BareInput(shape=(1, 20, 24))
    assert exported.verified_on == "8 noise tensors (synthetic), batch 1"
    assert any(remark.startswith("how images become its input is not known") for remark in exported.checkpoint.remarks)


def test_graph_without_preprocessing_embeds_none(bare: Callable[..., Exported], store: Store) -> None:
    assert onnx_file.preprocess(onnx_file.load(store.path(bare(input=(16, 16)).onnx))) is None


def test_images_are_refused_where_the_preprocessing_is_not_known(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store, connection: Connection, check_images: str
) -> None:
    path = save_tiny(tmp_path / "bare.safetensors", tiny_model(), preprocess=None)
    source = SourceTable(checkpoint=str(path), input=(16, 16))

    with pytest.raises(InputError, match="how images become the input of this model is not known") as caught:
        export.run(
            source, ExportTable(**QUICK), Context(store=store, connection=connection), images=images_of(check_images)
        )

    assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in caught.value.hint


@pytest.mark.parametrize(("sides", "message"), [((16,), "expected 2 sides"), ((1, 1), "leaves no pixel behind")])
def test_size_that_does_not_fit_is_refused(bare: Callable[..., Exported], sides: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bare(input=sides)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (dataclasses.replace(TINY_SPEC, stem=(StemConv(channels=8, kernel=(3, 3), stride=(2, 2)),)), (1, 224, 224)),
        (dataclasses.replace(TINY_SPEC, stem_pool="none"), (1, 32, 32)),
        (dataclasses.replace(TINY_SPEC, stem_pool="none", head_pool="flatten", map_side=7), (1, 14, 14)),
    ],
    ids=["large stem", "small stem", "flattened map"],
)
def test_size_follows_from_the_network_and_is_remarked(
    bare: Callable[..., Exported], spec: DenseNetSpec, shape: tuple[int, ...]
) -> None:
    said = {"stem_stride": spec.stem[0].stride, "stem_pool": spec.stem_pool}

    exported = bare(spec, **said)

    assert exported.onnx.preprocess == BareInput(shape=shape)
    assert any(remark.startswith("input size") for remark in exported.checkpoint.remarks)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("ndim", [1, 3])
def test_networks_of_other_axes_are_exported_and_verified_on_noise(
    exporter: str, ndim: int, store: Store, connection: Connection, tmp_path: Path
) -> None:
    block = DenseBlock(layers=2, growth=4, bottleneck=8, kernel=(3,) * ndim)
    stem = (StemConv(channels=8, kernel=(3,) * ndim, stride=(1,) * ndim),)
    spec = dataclasses.replace(TINY_SPEC, stem=stem, blocks=(block, block), in_channels=2)
    path = save_tiny(tmp_path / "other.safetensors", tiny_model(spec), preprocess=None)
    source = SourceTable(checkpoint=str(path), input=(12,) * ndim, stem_stride=1, stem_pool="max")

    exported, _ = export.run(
        source,
        ExportTable(tolerance=1e-5, exporter=exporter),
        Context(store=store, connection=connection),
        images=images_of("synthetic"),
    )

    assert exported.onnx.inputs[0].shape == (1, 2, *(12,) * ndim)
    assert exported.difference < 1e-5


def test_several_heads_are_outputs_by_name_and_later_stages_ask_for_one(
    store: Store, connection: Connection, tmp_path: Path
) -> None:
    tensors = dict(tiny_model().state_dict())
    two = {name.replace("classifier", "age"): tensor for name, tensor in tensors.items()}
    two |= {"sex.weight": torch.randn(2, 16), "sex.bias": torch.zeros(2)}
    torch.save(two, tmp_path / "two.pth")
    source = SourceTable(checkpoint=str(tmp_path / "two.pth"), input=(16, 16), stem_pool="max")

    exported, _ = export.run(
        source, ExportTable(**QUICK), Context(store=store, connection=connection), images=images_of("synthetic")
    )
    with pytest.raises(InputError, match=r"2 heads \(age, sex\)") as caught:
        reference.run(
            source,
            exported.onnx.preprocess,
            Context(store=store, connection=connection),
            images=open_set("synthetic", exported.onnx.preprocess),
        )

    assert [(output.name, output.shape) for output in exported.onnx.outputs] == [("age", (1, 4)), ("sex", (1, 2))]
    assert exported.difference < 1e-5 and "--head" in caught.value.hint


def test_rebuilt_network_is_held_against_the_equations_on_the_files_own_tensors(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    exported, _ = run(checkpoint)

    told = exported.checkpoint.remarks[-1]
    assert told.startswith("rebuilt network against the equations on the file's own tensors: ")


def test_rebuilt_network_that_differs_from_the_equations_is_not_kept(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Equations, "_transition", lambda self, x, name, *_: x[:, :8, ::2, ::2])

    with pytest.raises(ExportError, match="the rebuilt network differs from the equations on the file's own tensors"):
        run(checkpoint)

    assert kept(store) == []


def test_stated_preprocess_goes_before_the_files_own(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    stated = STATED.model_copy(update={"mean": (0.1,)})

    exported, _ = run(checkpoint, stated)

    assert exported.onnx.preprocess == stated.record()


def test_preprocess_with_other_channels_than_the_checkpoint_is_refused(
    run: Callable[..., tuple[Exported, bool]], checkpoint: Path
) -> None:
    rgb = STATED.model_copy(update={"color": "rgb", "mean": (0.5,) * 3, "std": (0.25,) * 3})

    message = r"the checkpoint reads 1 channels, the preprocessing gives 3 \(rgb\)"
    with pytest.raises(InputError, match=message) as caught:
        run(checkpoint, rgb)

    assert caught.value.hint == "set the color to gray, rgb or bgr as the model was trained"


@pytest.mark.parametrize("change", [{"mean": (0.485, 0.456, 0.406)}, {"std": (0.2, 0.2)}, {"std": (0.0,)}])
def test_mean_and_std_that_do_not_fit_the_channels_are_refused(
    change: dict[str, Any], run: Callable[..., tuple[Exported, bool]], tmp_path: Path
) -> None:
    wrong = SimpleNamespace(**(vars(TINY_PREPROCESS) | change))

    with pytest.raises(RequestError, match=next(iter(change))):
        run(save_tiny(tmp_path / "wrong.safetensors", tiny_model(), wrong))


def test_check_images_of_another_size_are_refused_by_name(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    large = str(save_images(tmp_path / "large.npz", 3, size=28))

    with pytest.raises(InputError, match=r"large\.npz: image 0: expected 16×16 px, found 28×28"):
        export.run(
            SourceTable(checkpoint=str(checkpoint)),
            ExportTable(**QUICK),
            Context(store=store, connection=connection),
            images=images_of(large),
        )


def test_file_that_is_no_checkpoint_is_refused(run: Callable[..., tuple[Exported, bool]], tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")

    with pytest.raises(CheckpointError, match="an HTML page"):
        run(tmp_path / "page.pth")


def test_checkpoint_whose_logits_are_all_zero_is_refused_in_words(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path
) -> None:
    model = tiny_model()
    model.classifier.weight.zero_()
    model.classifier.bias.zero_()

    with pytest.raises(ExportError, match="zero"):
        run(save_tiny(tmp_path / "zero.safetensors", model))


def test_onnx_file_is_taken_as_it_is(run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store) -> None:
    path = written(tmp_path, tiny_graphs.exported_model())
    x = tiny_graphs.images()

    exported, _ = run(path)

    taken = onnx_file.load(store.path(exported.onnx))
    assert tiny_graphs.operators(taken) == tiny_graphs.operators(tiny_graphs.exported_model())
    assert np.array_equal(*(tiny_graphs.evaluate(model, x)[0] for model in (taken, tiny_graphs.exported_model())))


def test_facts_of_a_taken_onnx_file_say_so(run: Callable[..., tuple[Exported, bool]], tmp_path: Path) -> None:
    path = written(tmp_path, tiny_graphs.exported_model())

    exported, _ = run(path)

    facts = exported.checkpoint
    assert (facts.container, facts.spec, facts.title) == ("ONNX", None, "ONNX graph")
    assert facts.remarks == ("an ONNX file: its own float answers are the reference",)
    assert (exported.difference, exported.verified_on) == (0.0, "taken as it is")


def test_onnx_file_is_known_by_its_bytes_and_not_its_extension(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(tiny_graphs.exported()[1])

    exported, _ = run(tmp_path / "model.bin")

    assert exported.checkpoint.container == "ONNX"


def test_onnx_file_gets_the_stated_preprocess_embedded(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store
) -> None:
    exported, _ = run(written(tmp_path, tiny_graphs.parse(RELU)), STATED)

    assert onnx_file.preprocess(onnx_file.load(store.path(exported.onnx))) == STATED.record()


def test_onnx_file_whose_own_preprocess_is_replaced_says_so(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store
) -> None:
    model = tiny_graphs.parse(RELU)
    own = dataclasses.replace(STATED.record(), mean=(0.125,))
    onnx_file.embed(model, own)

    exported, _ = run(written(tmp_path, model), STATED)

    assert onnx_file.preprocess(onnx_file.load(store.path(exported.onnx))) == STATED.record()
    assert f"in place of the preprocessing that the file states: {own.words}" in exported.checkpoint.remarks


def test_onnx_file_without_preprocess_is_taken_with_a_remark(
    store: Store, connection: Connection, tmp_path: Path
) -> None:
    source = SourceTable(checkpoint=str(written(tmp_path, tiny_graphs.parse(RELU))))

    exported, _ = export.run(
        source, ExportTable(**QUICK), Context(store=store, connection=connection), images=images_of("synthetic")
    )

    assert exported.onnx.preprocess == BareInput(shape=(1, 16, 16))
    assert any(remark.startswith("how images become its input is not known") for remark in exported.checkpoint.remarks)


def test_onnx_file_whose_size_is_open_is_refused_with_how_to_name_it(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"given\.onnx: the file does not say how images become its input") as caught:
        run(written(tmp_path, tiny_graphs.parse(RELU.replace("16,16", "H,W"))))

    assert "--input 224x224" in caught.value.hint


def test_onnx_file_with_another_input_is_refused(
    run: Callable[..., tuple[Exported, bool]], tmp_path: Path, store: Store
) -> None:
    path = written(tmp_path, tiny_graphs.parse(RELU.replace("1,16,16", "3,24,24")))

    with pytest.raises(InputError, match=r"expected one input N×1×16×16, found x \['N', 3, 24, 24\]"):
        run(path, STATED)

    assert kept(store) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_onnx_file_is_refused(share: float, run: Callable[..., tuple[Exported, bool]], tmp_path: Path) -> None:
    data = tiny_graphs.exported()[1]
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(InputError, match=r"cut\.onnx: not a whole ONNX file") as caught:
        run(tmp_path / "cut.onnx")

    assert "it may be cut off" in caught.value.hint


def test_stage_tells_what_it_does(store: Store, connection: Connection, checkpoint: Path, check_images: str) -> None:
    heard = list[ProgressEvent]()

    export.run(
        SourceTable(checkpoint=str(checkpoint)),
        ExportTable(**QUICK),
        Context(store=store, connection=connection, on_progress=heard.append),
        images=images_of(check_images),
    )

    assert {event.stage for event in heard} == {"export"}
    assert heard[0].text == "reading tiny.safetensors"


def logits(store: Store, path: str) -> np.ndarray:
    with np.load(store.root / path) as data:
        return data["logits"]


def test_answers_are_torchs_own_logits(
    store: Store, connection: Connection, checkpoint: Path, check_images: str
) -> None:
    source = SourceTable(checkpoint=str(checkpoint))

    answers, _ = reference.run(
        source,
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set(check_images, TINY_PREPROCESS),
    )

    assert np.array_equal(logits(store, answers.path), by_torch(images.open_set(check_images, TINY_PREPROCESS)))


def test_answers_count_the_accuracy_on_labels(
    store: Store, connection: Connection, checkpoint: Path, check_images: str
) -> None:
    image_set = images.open_set(check_images, TINY_PREPROCESS)
    expected = float((by_torch(image_set).argmax(1) == image_set.labels).mean())

    answers, _ = reference.run(
        SourceTable(checkpoint=str(checkpoint)),
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set(check_images, TINY_PREPROCESS),
    )

    assert (answers.n, answers.labelled, answers.top1) == (10, True, expected)


def test_answers_without_labels_have_no_accuracy(store: Store, connection: Connection, checkpoint: Path) -> None:
    answers, _ = reference.run(
        SourceTable(checkpoint=str(checkpoint)),
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set("synthetic", TINY_PREPROCESS),
    )

    assert (answers.labelled, answers.top1) == (False, None)


def test_answers_refuse_labels_that_the_checkpoint_has_no_classes_for(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.npz"
    np.savez(path, images=np.zeros((2, 16, 16), np.uint8), labels=np.array([0, 4]))

    with pytest.raises(InputError, match=r"labels\.npz: image \d+: label 4, and the checkpoint has 4 classes"):
        reference.run(
            SourceTable(checkpoint=str(checkpoint)),
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(str(path), TINY_PREPROCESS),
        )


def test_answers_refuse_folders_of_some_classes_only(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    """Two folders are no four classes: which of the four they are, their names do not say."""
    folder = class_folders(tmp_path / "two", "cat", "dog")
    source = SourceTable(checkpoint=str(checkpoint))

    with pytest.raises(InputError, match=r"two: labels of 2 classes, and the checkpoint has 4") as caught:
        reference.run(
            source,
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(str(folder), TINY_PREPROCESS),
        )
    (folder / "classes.txt").write_text("ant\ncat\nbee\ndog\n")
    answers, _ = reference.run(
        source,
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set(str(folder), TINY_PREPROCESS),
    )

    assert "classes.txt" in caught.value.hint
    with np.load(store.root / answers.path) as data:
        assert data["labels"].tolist() == [1, 3]


def test_answers_refuse_a_label_below_zero_and_name_the_file(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    class_folders(tmp_path, "one")
    (tmp_path / "set.csv").write_text("path,label\none/0.png,-1\n")

    with pytest.raises(InputError, match=r"set\.csv: one/0\.png: label -1, and the checkpoint has 4 classes"):
        reference.run(
            SourceTable(checkpoint=str(checkpoint)),
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(str(tmp_path / "set.csv"), TINY_PREPROCESS),
        )


def test_answers_keep_several_labels_an_image(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    labels = np.array([[1, 0, 0, 1], [0, 0, 0, 0]], np.uint8)
    np.savez(tmp_path / "several.npz", images=np.zeros((2, 16, 16), np.uint8), labels=labels)
    source, several = SourceTable(checkpoint=str(checkpoint)), str(tmp_path / "several.npz")

    answers, _ = reference.run(
        source, TINY_PREPROCESS, Context(store=store, connection=connection), images=open_set(several, TINY_PREPROCESS)
    )

    assert (answers.labelled, answers.top1) == (True, None)
    with np.load(store.root / answers.path) as data:
        assert np.array_equal(data["labels"], labels)


def test_answers_count_what_was_left_out(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    folder = class_folders(tmp_path / "four", "a", "b", "c", "d")
    (folder / "b" / "0.png").write_bytes(b"no image")
    source, heard = SourceTable(checkpoint=str(checkpoint)), list[str]()

    answers, _ = reference.run(
        source,
        TINY_PREPROCESS,
        Context(store=store, connection=connection, on_progress=lambda e: heard.append(e.text)),
        images=open_set(str(folder), TINY_PREPROCESS, skip_bad=True),
    )

    assert (answers.n, answers.skipped) == (3, 1)
    assert dict(answers.made_by.rows)["left out"].startswith(
        f"{folder}: 1 of 4 left out: b/0.png: not a readable image"
    )
    assert dict(answers.made_by.rows)["left out"] in heard


def class_folders(folder: Path, *names: str) -> Path:
    """Save one image for each class."""
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((16, 16), 10 * index, np.uint8)).save(folder / name / "0.png")
    return folder


def test_answers_of_an_onnx_file_are_its_own(
    store: Store, connection: Connection, check_images: str, tmp_path: Path
) -> None:
    path = written(tmp_path, tiny_graphs.exported_model())

    answers, _ = reference.run(
        SourceTable(checkpoint=str(path)),
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set(check_images, TINY_PREPROCESS),
    )

    wanted = by_torch(images.open_set(check_images, TINY_PREPROCESS))
    assert metrics.relative_difference(wanted, logits(store, answers.path)) < 1e-5
    assert [row[0] for row in answers.made_by.rows] == ["onnxruntime"]


def test_answers_are_kept_until_the_images_change(
    store: Store, connection: Connection, checkpoint: Path, check_images: str
) -> None:
    source = SourceTable(checkpoint=str(checkpoint))

    had = []
    for seed in (0, 0, 1):
        save_images(Path(check_images), 10, seed=seed)
        had.append(
            reference.run(
                source,
                TINY_PREPROCESS,
                Context(store=store, connection=connection),
                images=open_set(check_images, TINY_PREPROCESS),
            )[1]
        )

    assert had == [False, True, False]


def test_answers_of_a_missing_checkpoint_name_it(
    store: Store, connection: Connection, check_images: str, tmp_path: Path
) -> None:
    source = SourceTable(checkpoint=str(tmp_path / "absent.pth"))

    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        reference.run(
            source,
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(check_images, TINY_PREPROCESS),
        )


def test_labels_that_begin_at_one_are_told_how_to_begin_at_zero(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((4, 16, 16), np.uint8), labels=np.array([1, 2, 3, 4]))

    with pytest.raises(InputError, match=r"labels run from 1 to 4, and the checkpoint's 4 classes") as caught:
        reference.run(
            SourceTable(checkpoint=str(checkpoint)),
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(str(tmp_path / "one.npz"), TINY_PREPROCESS),
        )

    assert caught.value.hint == "subtract 1 from every label, so that the first class is 0"


def test_labels_without_a_class_are_refused(
    store: Store, connection: Connection, checkpoint: Path, tmp_path: Path
) -> None:
    images, labels = np.zeros((2, 16, 16), np.uint8), np.zeros((2, 0), np.uint8)
    np.savez(tmp_path / "none.npz", images=images, labels=labels)

    with pytest.raises(InputError, match=r"none\.npz: labels of 0 classes, and the checkpoint has 4"):
        reference.run(
            SourceTable(checkpoint=str(checkpoint)),
            TINY_PREPROCESS,
            Context(store=store, connection=connection),
            images=open_set(str(tmp_path / "none.npz"), TINY_PREPROCESS),
        )


def test_answers_of_a_graph_that_gives_maps_are_maps(store: Store, connection: Connection, tmp_path: Path) -> None:
    source = SourceTable(checkpoint=str(written(tmp_path, tiny_graphs.parse(RELU))))

    answers, _ = reference.run(
        source,
        TINY_PREPROCESS,
        Context(store=store, connection=connection),
        images=open_set("synthetic", TINY_PREPROCESS),
    )

    assert (answers.task, answers.task_from.partition(":")[0]) == (
        "segment",
        "inferred from the output's shape N×1×16×16; --task says otherwise",
    )
    assert np.load(store.root / answers.path).shape == (32, 1, 16, 16)


# Flags that would change nothing


@pytest.mark.parametrize("key", ["opset", "batch", "dynamic", "exporter", "head", "eps", "stem_stride"])
def test_a_flag_that_would_change_nothing_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x00")

    with pytest.raises(
        InputError, match=f"is an ONNX file and is taken as it is: '{key}' would change nothing"
    ) as caught:
        export.verify_applicable(tmp_path / "model.onnx", ["preprocess", key])

    assert caught.value.hint == "leave them out; for another graph export the checkpoint itself"


def test_flags_of_the_input_apply_to_every_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x00")
    (tmp_path / "model.pth").write_bytes(b"PK")

    export.verify_applicable(tmp_path / "model.onnx", ["input", "preprocess"])
    export.verify_applicable(tmp_path / "model.pth", ["opset", "head"])
