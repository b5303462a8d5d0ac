"""The section of TensorRT-RTX plans: sizes held against float32, kernels told, and the word that nothing was run."""

from benchmarks import plans
from benchmarks.plans import Plan, Plans
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Proof

KERNELS = (("Conv", 3), ("pointwise", 1), ("pointwise, for int8 alone", 4))
FOUND = Plans(
    plans=(
        Plan(net="tiny", precision="fp32", size_bytes=8_000_000,
             proof=Proof(source="text", counts=(("Conv", "fp32", 3),), kernels=(("Conv", 3), ("pointwise", 2)))),
        Plan(net="tiny", precision="int8", size_bytes=3_000_000,
             proof=Proof(source="text", counts=(("Conv", "int8", 3), ("weight", "int8", 9)), kernels=KERNELS,
                         advice="int8 may not pay here: …")),
        Plan(net="tiny", precision="fp16", why="out of luck"),
    ),
    capabilities=("8.6", "8.9"),
    version="1.7.1",
)  # fmt: skip


def cells(name: str) -> list[str]:
    line = next(line for line in plans.render(FOUND).splitlines() if f"| {name} " in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_plan_is_shown_with_its_share_of_float32_and_its_kernels() -> None:
    assert cells("int8") == ["tiny", "int8", "3.0", "0.38", "3 int8", "5", "4", "int8 may not pay"]


def test_a_plan_that_failed_gives_its_reason() -> None:
    assert cells("fp16") == ["tiny", "fp16", "–", "–", "–", "–", "–", "out of luck"]


def test_the_page_says_that_nothing_was_run() -> None:
    said = plans.render(FOUND)

    assert "sm_86 and sm_89, built by TensorRT-RTX 1.7.1 on a machine without a GPU and **not run**" in said


def test_the_record_comes_back_from_json() -> None:
    assert codec.from_json(Plans, codec.to_json(FOUND)) == FOUND
